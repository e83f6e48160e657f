"""From a TOML file to a `Scenario`, or to a list of all that is wrong with it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, get_origin

import attrs
import cattrs
import tomli
from cattrs import IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from xiaozhi_trio.engines.errors import EngineErrorCategory
from xiaozhi_trio.testing import scenario as kinds
from xiaozhi_trio.testing.scenario import Scenario, Step
from xiaozhi_trio.testing.scenario_engines import Call, Mishaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_STEPS: Final = MappingProxyType(
    {
        "say": kinds.Say,
        "sound": kinds.Sound,
        "wait_ms": kinds.Wait,
        "wait_for": kinds.WaitFor,
        "press": kinds.Press,
        "release": kinds.Release,
        "wake": kinds.Wake,
        "type": kinds.Type,
        "connect": kinds.Connect,
        "disconnect": kinds.Disconnect,
        "network": kinds.Network,
        "server": kinds.Stop,
        "send": kinds.Send,
        "send_text": kinds.SendText,
        "send_hex": kinds.SendBytes,
    }
)
_EXPECTATIONS: Final = MappingProxyType(
    {
        "event": kinds.ExpectEvent,
        "absent": kinds.ExpectAbsent,
        "order": kinds.ExpectOrder,
        "times": kinds.ExpectTimes,
        "heard": kinds.ExpectHeard,
        "state": kinds.ExpectState,
        "longest_gap_ms": kinds.ExpectGap,
        "history": kinds.ExpectHistory,
        "asked": kinds.ExpectAsked,
    }
)


class ScenarioFileError(Exception):
    """A scenario cannot be used; `problems` are all that were found."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.problems = problems


def read_scenario(file: Path) -> Scenario:
    """The scenario in a file; blocks. Raises `ScenarioFileError`."""
    try:
        document = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioFileError(
            str(file), [f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"]
        ) from error
    except OSError as error:
        raise ScenarioFileError(str(file), [f"cannot be read: {error.strerror}"]) from error
    return parse_scenario(document, file=str(file))


def parse_scenario(document: str, *, file: str) -> Scenario:
    """The scenario in a TOML document; `file` is how errors call it.

    Raises `ScenarioFileError`.
    """
    try:
        tables = tomli.loads(document)
    except tomli.TOMLDecodeError as error:
        raise ScenarioFileError(file, [f"this is not TOML: {error}"]) from error
    try:
        scenario: Scenario = _CONVERTER.structure(tables, Scenario)
    except cattrs.ClassValidationError as error:
        raise ScenarioFileError(file, list(_problems(error, ""))) from error
    return scenario


def _problems(error: BaseException, path: str) -> Iterator[str]:
    match error:
        case cattrs.ClassValidationError():
            noted, others = error.group_exceptions()
            for cause, note in noted:
                yield from _problems(cause, f"{path}.{note.name}".lstrip("."))
            for cause in others:
                yield from _problems(cause, path)
        case IterableValidationError():
            numbered, others = error.group_exceptions()
            for cause, place in numbered:
                # Counted from 1, as a person counts the tables of a file.
                index = place.index + 1 if isinstance(place.index, int) else place.index
                yield from _problems(cause, f"{path}[{index}]")
            for cause in others:
                yield from _problems(cause, path)
        case cattrs.ForbiddenExtraKeysError():
            known = ", ".join(attribute.name for attribute in attrs.fields(error.cl))
            for key in sorted(error.extra_fields):
                yield f"{path}.{key}: unknown key; known here: {known}".lstrip(".")
        case KeyError():
            yield f"{path}: is missing".lstrip(".")
        case _:
            yield f"{path}: {error}"


def _strictly(expected: str, *types: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"came {value!r}, expected {expected}")
        return value

    return structure


def _tagged(
    converter: cattrs.Converter, classes: Mapping[str, type[Any]], what: str
) -> Callable[[Any, Any], Any]:
    """A table is of the class whose key it has."""

    def structure(table: Any, _: Any) -> Any:
        if not isinstance(table, dict):
            raise TypeError(f"came {table!r}, expected a table")
        tags = [key for key in classes if key in table]
        if len(tags) != 1:
            came = " and ".join(tags) or "none of them"
            raise ValueError(f"{what} has exactly one of {', '.join(classes)}; came {came}")
        return converter.structure(table, classes[tags[0]])

    return structure


def _said(value: Any, _: Any) -> tuple[str | int, ...]:
    parts = value if isinstance(value, list) else [value]
    if not all(type(part) in (str, int) for part in parts):
        raise TypeError(f"came {value!r}, expected a text or a list of texts and pauses (ms)")
    return tuple(parts)


def _is_choice(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _of_choice(value: Any, literal: Any) -> Any:
    if value not in literal.__args__ or type(value) not in map(type, literal.__args__):
        choices = ", ".join(map(repr, literal.__args__))
        raise ValueError(f"came {value!r}, expected one of {choices}")
    return value


def _error_category(value: Any, _: Any) -> str:
    categories = [category.value for category in EngineErrorCategory]
    if value not in categories:
        raise ValueError(f"came {value!r}, expected one of {', '.join(categories)}")
    return str(value)


def _table(value: Any, _: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"came {value!r}, expected a table")
    return value


def _hex(value: Any, _: Any) -> str:
    try:
        bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"came {value!r}, expected pairs of hexadecimal digits") from error
    return str(value)


_SPECIAL: Final = MappingProxyType(
    {
        "say": (kinds.Say, _said),
        "send_hex": (kinds.SendBytes, _hex),
        "server": (Scenario, _table),
        "send": (kinds.Send, _table),
        "arguments": (Call, _table),
    }
)
"""Fields whose values cannot be told from their types."""


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(str, _strictly("a text in quotes", str))
    converter.register_structure_hook(int, _strictly("a whole number", int))
    converter.register_structure_hook(bool, _strictly("true or false", bool))
    converter.register_structure_hook(float, _strictly("a number", int, float))
    converter.register_structure_hook_func(_is_choice, _of_choice)

    @converter.register_structure_hook_factory(attrs.has)
    def table_hook(cls: type[Any]) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(cls)
        overrides: dict[str, Any] = {
            name: override(struct_hook=hook)
            for name, (owner, hook) in _SPECIAL.items()
            if owner is cls
        }
        if issubclass(cls, Mishaps):
            overrides["error"] = override(struct_hook=_error_category)
        structure = make_dict_structure_fn(
            cls, converter, _cattrs_forbid_extra_keys=True, **overrides
        )

        def checked(table: Any, kind: Any) -> Any:
            return structure(_table(table, kind), kind)

        return checked

    converter.register_structure_hook_func(
        lambda kind: kind is Step, _tagged(converter, _STEPS, "a step")
    )
    converter.register_structure_hook_func(
        lambda kind: kind == kinds.Expectation, _tagged(converter, _EXPECTATIONS, "an expectation")
    )
    return converter


_CONVERTER: Final = _make_converter()
