"""From the tables of a parsed file to `Settings`, with every mistake found in one pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from xiaozhi_trio.config.agents import AGENTS, agent_sections, between_agents, laid_over
from xiaozhi_trio.config.engines import KINDS, NamedEngine, built_in_engines
from xiaozhi_trio.config.environment import expand, is_reference
from xiaozhi_trio.config.named_engines import ENGINE, engine_of_table
from xiaozhi_trio.config.rules import FIELD_RULES, SECTION_RULES
from xiaozhi_trio.config.setting import facts_of
from xiaozhi_trio.config.settings import AgentSettings, Settings
from xiaozhi_trio.config.values import TABLE, SettingError, closest, fit, is_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xiaozhi_trio.config.toml_lines import KeyPath

    SectionRules = Mapping[type, Callable[[Any], Iterator[SettingError]]]

_NAMED = "named"
"""The field of the engines under names of their own: tables that say which engine it is."""
_OTHERS = "others"
"""The field that keeps the tables of engines that are not built in."""
_GATHERED = frozenset({_NAMED, _OTHERS})
"""Fields that no table of the file is called by."""
_BUILT_IN = {settings for section in KINDS for settings in built_in_engines(section).values()}
"""The classes of the built-in engines' own tables."""
_TYPO = 0.75
"""Likeness from which a table's name is taken for a misspelt built-in engine."""
_SECRET_NAME = re.compile(r"(^|_)(key|secret|token|password)$", re.IGNORECASE)


class _Within(Exception):
    """The mistakes in one of several tables whose names or places are the file's own."""

    def __init__(self, key: str | int, cause: Exception) -> None:
        super().__init__(key)
        self.key = key
        self.cause = cause


def is_secret_name(key: str) -> bool:
    """Whether a key of a table without facts holds a secret: it ends in key, secret, token…"""
    return _SECRET_NAME.search(key.replace("-", "_")) is not None


def structure_settings(tables: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Make settings of a parsed file.

    Raises `cattrs.ClassValidationError` with every mistake; see `unfit_values`.
    """
    of_all = {name: table for name, table in tables.items() if name != AGENTS}
    mistaken: list[Exception] = []
    common = None
    agents: tuple[AgentSettings, ...] = ()
    try:
        common = _converter(environment, SECTION_RULES).structure(of_all, Settings)
    except ExceptionGroup as error:
        mistaken.append(error)
    try:
        agents = _structure_agents(tables.get(AGENTS, []), common, environment)
    except (SettingError, ExceptionGroup) as error:
        mistaken.append(_Within(AGENTS, error))
    if common is None or mistaken:
        raise cattrs.ClassValidationError("settings that cannot be", mistaken, Settings)
    return attrs.evolve(common, agents=agents)


def unfit_values(
    error: BaseException, path: KeyPath = ()
) -> Iterator[tuple[KeyPath, SettingError]]:
    """Every mistake in an error of `structure_settings`, with the path of its key."""
    match error:
        case SettingError():
            yield path + error.path, error
        case _Within():
            yield from unfit_values(error.cause, (*path, error.key))
        case cattrs.ClassValidationError():
            noted, others = error.group_exceptions()
            for cause, note in noted:
                # The file has no such table: the engines' tables were gathered under it.
                deeper = path if note.name in _GATHERED else (*path, note.name)
                yield from unfit_values(cause, deeper)
            for cause in others:
                yield from unfit_values(cause, path)
        case cattrs.ForbiddenExtraKeysError():
            for key in error.extra_fields:
                yield (*path, key), _unknown(key, error.cl, path)
        case ExceptionGroup():
            for cause in error.exceptions:
                yield from unfit_values(cause, path)
        case _:
            raise error


def name_of(path: KeyPath, *, table: bool = False) -> str:
    """A path as the file shows it: `[listening] end_silence_ms`, `[asr.whisper]`, `[[agents]]`."""
    if table or isinstance(path[-1], int):
        name = ".".join(key for key in path if isinstance(key, str))
        return f"[[{name}]]" if isinstance(path[-1], int) else f"[{name}]"
    *tables, key = path
    return f"{name_of(tuple(tables), table=True)} {key}" if tables else str(key)


def _converter(environment: Mapping[str, str], rules: SectionRules) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)

    @converter.register_structure_hook_factory(attrs.has)
    def section_hook(section: type[Any]) -> Callable[[Any, Any], Any]:
        return _section_hook(section, converter, environment, rules.get(section))

    return converter


def _structure_agents(
    tables: Any, common: Settings | None, environment: Mapping[str, str]
) -> tuple[AgentSettings, ...]:
    """The agents on top of what all devices have, which is None where that is mistaken."""
    if not isinstance(tables, list):
        raise SettingError(
            f"came {'one table' if isinstance(tables, dict) else 'a single value'}, expected a "
            "list of tables",
            "begin each agent with [[agents]], and its sections with [agents.listening] and such",
        )
    # What an agent leaves out is not there yet: only itself is judged, no section as a whole.
    converter = _converter(environment, {AgentSettings: SECTION_RULES[AgentSettings]})
    agents: list[AgentSettings] = []
    mistaken: list[Exception] = []
    for place, table in enumerate(tables):
        try:
            agent = converter.structure(table, AgentSettings)
            if common is not None:
                agent = laid_over(common, agent, table)
                _judge_agent(agent, common)
            agents.append(agent)
        except (SettingError, ExceptionGroup) as error:
            mistaken.append(_Within(place, error))
    mistaken = mistaken or list(between_agents(agents))
    if mistaken:
        raise ExceptionGroup("agents that cannot be", mistaken)
    return tuple(agents)


def _judge_agent(agent: AgentSettings, common: Settings) -> None:
    """Ask the rules of the sections and of all settings. Raises an ExceptionGroup."""
    broken: list[Exception] = []
    for name in agent_sections(AgentSettings):
        section = getattr(agent, name)
        rules = SECTION_RULES.get(type(section))
        broken.extend(_Within(name, error) for error in _broken(rules, section))
    for error in _broken(SECTION_RULES.get(Settings), common.led_by(agent)):
        message = f"with what this agent has, {name_of(error.path)}: {error.message}"
        broken.append(SettingError(message, error.fix))
    if broken:
        raise ExceptionGroup("an agent contradicts itself", broken)


def _broken(
    rules: Callable[[Any], Iterator[SettingError]] | None, settings: Any
) -> list[SettingError]:
    return [] if rules is None else list(rules(settings))


def _section_hook(
    section: type[Any],
    converter: cattrs.Converter,
    environment: Mapping[str, str],
    rules: Callable[[Any], Iterator[SettingError]] | None,
) -> Callable[[Any, Any], Any]:
    attrs.resolve_types(section)
    overrides: dict[str, Any] = {}
    for attribute in attrs.fields(section):
        if is_setting(attribute):
            hook = _value_hook(attribute, FIELD_RULES.get((section, attribute.name)), environment)
            overrides[attribute.name] = override(struct_hook=hook)
        elif attribute.name == _OTHERS:
            overrides[attribute.name] = override(
                struct_hook=lambda tables, _: _expand_within(tables, environment)
            )
        elif attribute.name == _NAMED:
            overrides[attribute.name] = override(
                struct_hook=lambda tables, _: _structure_named(
                    tables, section, converter, environment
                )
            )
    fill = make_dict_structure_fn(section, converter, _cattrs_forbid_extra_keys=True, **overrides)

    def structure(tables: Any, _: Any) -> Any:
        if not isinstance(tables, dict):
            raise _no_table(tables)
        if _OTHERS in overrides:
            tables = _gathered(tables, section)
        settings = fill(tables, section)
        if broken := _broken(rules, settings):
            raise ExceptionGroup(f"{section.__name__} contradict each other", broken)
        return settings

    return structure


def _value_hook(
    attribute: attrs.Attribute[Any],
    rule: Callable[[Any], None] | None,
    environment: Mapping[str, str],
) -> Callable[[Any, Any], Any]:
    secret = facts_of(attribute).secret

    def structure(value: Any, _: Any) -> Any:
        fitting = fit(value, attribute)
        if secret:
            fitting = expand(fitting, environment)
        elif is_reference(fitting):
            raise SettingError(
                f"came {fitting}, but only secrets are read from the environment",
                f"write the value itself: {attribute.name} = …",
            )
        elif attribute.type == TABLE:
            fitting = _expand_within(fitting, environment)
        if rule is not None:
            rule(fitting)
        return fitting

    return structure


def _expand_within(tables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Expand the secrets of tables whose keys are not ours to know."""
    expanded: dict[str, Any] = {}
    unfit: list[Exception] = []
    for key, value in tables.items():
        try:
            if isinstance(value, dict):
                expanded[key] = _expand_within(value, environment)
            elif isinstance(value, str) and is_secret_name(key):
                expanded[key] = expand(value, environment)
            else:
                expanded[key] = value
        except* SettingError as group:
            unfit.extend(
                SettingError(cause.message, cause.fix, (key, *path))
                for path, cause in unfit_values(group)
            )
    if unfit:
        raise ExceptionGroup("secrets that cannot be read", unfit)
    return expanded


def _structure_named(
    tables: Mapping[str, Any],
    section: type[Any],
    converter: cattrs.Converter,
    environment: Mapping[str, str],
) -> dict[str, NamedEngine]:
    named: dict[str, NamedEngine] = {}
    mistaken: list[Exception] = []
    for name, table in tables.items():
        try:
            engine = engine_of_table(name, tables, section)
            options = {key: value for key, value in table.items() if key != ENGINE}
            settings = built_in_engines(section).get(engine)
            named[name] = NamedEngine(
                engine=engine,
                settings=_expand_within(options, environment)
                if settings is None
                else converter.structure(options, settings),
            )
        except (SettingError, ExceptionGroup) as error:
            mistaken.append(_Within(name, error))
    if mistaken:
        raise ExceptionGroup("named engines that cannot be", mistaken)
    return named


def _gathered(tables: Mapping[str, Any], section: type[Any]) -> dict[str, Any]:
    """Move tables that say which engine they are, and those of engines that are not built in.

    A table that looks like a misspelt built-in engine stays, to be reported, unless
    the configuration really asks for an engine of that name.
    """
    if misused := {name for name in _GATHERED if not isinstance(tables.get(name, {}), dict)}:
        raise cattrs.ForbiddenExtraKeysError(None, section, misused)
    known = [name for name in attrs.fields_dict(section) if name not in _GATHERED]
    asked_for = set(_texts_within(tables))
    kept: dict[str, Any] = {}
    apart: dict[str, dict[str, Any]] = {_NAMED: {}, _OTHERS: {}}
    for name, value in tables.items():
        builtin = None if name in asked_for else closest(name, known, _TYPO)
        misspelt = builtin is not None and not name.startswith(builtin)
        if name in known or not isinstance(value, dict):
            kept[name] = value
        elif ENGINE in value:
            apart[_NAMED][name] = value
        elif misspelt:
            kept[name] = value
        else:
            apart[_OTHERS][name] = value
    return kept | {field: gathered for field, gathered in apart.items() if gathered}


def _texts_within(tables: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a section, its lists and its tables, among them the names of engines."""
    for value in tables.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (text for text in value.values() if isinstance(text, str))
        elif isinstance(value, list):
            yield from (text for text in value if isinstance(text, str))


def _no_table(value: Any) -> SettingError:
    if isinstance(value, list):
        return SettingError(
            "came a list of tables, expected one table", "write its name in [ ] once"
        )
    return SettingError(
        "came a single value, expected a table", "write the name in [ ] and keys below it"
    )


def _unknown(key: str, section: type[Any], path: KeyPath) -> SettingError:
    """The message for a key or table that nothing has, with the likeliest one that exists."""
    known = {attribute.name: attribute for attribute in attrs.fields(section)}
    for gathered in _GATHERED:
        known.pop(gathered, None)
    message = "unknown name"
    if key == ENGINE and section in _BUILT_IN:
        another = name_of((*path[:-1], f"my-{path[-1]}"), table=True)
        return SettingError(
            f"{message}, for {name_of(path, table=True)} is the built-in engine's own table",
            f"give a further one a name of its own, for example {another}",
        )
    own_homes = _homes(AgentSettings, path[:2]) if AGENTS in path else ()
    homes = [
        *(home for home in own_homes if home[-1] == key),
        *(home for home in _homes(Settings) if home[-1] == key),
    ]
    likely = closest(key, known)
    if homes and closest(key, known, _TYPO) is None:
        return SettingError(message, f"move it: it is {' or '.join(map(name_of, homes))}")
    if likely is not None:
        place = (0,) if likely == AGENTS else ()
        likely_name = name_of((*path, likely, *place), table=not is_setting(known[likely]))
        return SettingError(message, f"did you mean {likely_name}?")
    choice = ", ".join(sorted(known)) or "none, this table is empty"
    return SettingError(message, f"remove it; known here: {choice}")


def _homes(section: type[Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of every setting there is, but for those in lists of tables."""
    attrs.resolve_types(section)
    for attribute in attrs.fields(section):
        if is_setting(attribute):
            yield (*path, attribute.name)
        elif attribute.type is not None and attrs.has(attribute.type):
            yield from _homes(attribute.type, (*path, attribute.name))
