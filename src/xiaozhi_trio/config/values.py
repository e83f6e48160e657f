"""One value from the file against one setting: its type, bounds and choices.

Nothing is coerced but a whole number to a number: `"600"` for 600 is a mistake
that is better told than guessed.
"""

from __future__ import annotations

import datetime
import difflib
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xiaozhi_trio.config.setting import SettingFacts, facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import attrs

    from xiaozhi_trio.config.toml_lines import KeyPath

_LONGEST_SHOWN = 60
"""Characters of a value that an error repeats."""

TEXTS = tuple[str, ...]
TABLE = Mapping[str, Any]


class SettingError(ValueError):
    """A value that a setting cannot take: what came and was expected, and the fix."""

    def __init__(self, message: str, fix: str, path: KeyPath = ()) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.path = path
        """Keys below the setting or section that was checked; empty is that one itself."""


def is_setting(attribute: attrs.Attribute[Any]) -> bool:
    """Whether a field is a setting, not a section of settings."""
    try:
        facts_of(attribute)
    except KeyError:
        return False
    return True


def default_of(attribute: attrs.Attribute[Any]) -> Any:
    """The default, made by its factory where it has one."""
    make = getattr(attribute.default, "factory", None)
    return attribute.default if make is None else make()


def toml_of(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes of a string are all TOML's too.
            return json.dumps(value, ensure_ascii=False)
        case Mapping():
            members = (f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items())
            return f"{{ {', '.join(members)} }}" if value else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml_of, value))}]"
        case datetime.date() | datetime.time():
            return value.isoformat()
    raise TypeError(f"TOML has no {type(value).__name__}")


def expected_of(kind: Any, facts: SettingFacts) -> str:
    """What a setting takes, in words: `a whole number from 100 to 5000 ms`."""
    unit = f" {facts.unit}" if facts.unit else ""
    if facts.choices is not None:
        quote = json.dumps if kind is str else str
        return f"one of {', '.join(map(quote, facts.choices))}{unit}"
    if kind is bool:
        return "true or false"
    if kind is str:
        return "text"
    if kind == TEXTS:
        return "a list of texts"
    if kind in (int, float):
        return ("a whole number" if kind is int else "a number") + _bounds_of(facts) + unit
    return "a table"


def _bounds_of(facts: SettingFacts) -> str:
    """` from 100 to 5000`, ` of at least 1`, ` of at most 5` or nothing."""
    lowest, highest = facts.minimum, facts.maximum
    if lowest is not None and highest is not None:
        return f" from {lowest} to {highest}"
    if lowest is not None:
        return f" of at least {lowest}"
    if highest is not None:
        return f" of at most {highest}"
    return ""


def fit(value: Any, attribute: attrs.Attribute[Any]) -> Any:
    """The value as the settings keep it. Raises `SettingError`."""
    facts = facts_of(attribute)
    kind = attribute.type
    if _is_of(kind, value) and _is_within(kind, value, facts):
        if kind is float:
            return float(value)
        return tuple(value) if kind == TEXTS else value
    raise SettingError(
        f"came {_shown(value, facts)}, expected {expected_of(kind, facts)}",
        _fix(value, attribute, facts),
    )


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like this one, if any is."""
    by_folded = {candidate.casefold().replace("-", "_"): candidate for candidate in known}
    folded = name.casefold().replace("-", "_")
    matches = difflib.get_close_matches(folded, by_folded, n=1, cutoff=cutoff)
    return by_folded[matches[0]] if matches else None


def _is_of(kind: Any, value: Any) -> bool:
    # bool is an int to Python; to the writer of a file it is not.
    if kind in (int, bool, str):
        return type(value) is kind
    if kind is float:
        return type(value) in (int, float)
    if kind == TEXTS:
        return isinstance(value, list) and all(type(item) is str for item in value)
    if kind == TABLE:
        return isinstance(value, dict)
    raise TypeError(f"no settings of type {kind} are known")


def _is_within(kind: Any, value: Any, facts: SettingFacts) -> bool:
    if facts.choices is not None:
        return str(value) in facts.choices
    if kind not in (int, float):
        return True
    # An infinity is no use to any setting, and a NaN is within nothing.
    lowest = -sys.float_info.max if facts.minimum is None else facts.minimum
    highest = sys.float_info.max if facts.maximum is None else facts.maximum
    return bool(lowest <= value <= highest)


def _shown(value: Any, facts: SettingFacts) -> str:
    match value:
        case dict():
            return "a table"
        case list() if any(isinstance(item, dict) for item in value):
            return "a list of tables"
        case _ if facts.secret:
            return "a hidden value that is not text"
    text = _cut(toml_of(value))
    return f"the text {text}" if isinstance(value, str) else text


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _fix(value: Any, attribute: attrs.Attribute[Any], facts: SettingFacts) -> str:
    def write(suggestion: Any) -> str:
        return f"{attribute.name} = {toml_of(suggestion)}"

    kind = attribute.type
    if facts.secret:
        return f'write it in quotes: {attribute.name} = "…"'
    if facts.choices is not None and isinstance(value, str) and kind is str:
        choice = closest(value, facts.choices)
        if choice is not None:
            return f"write {write(choice)}"
    if isinstance(value, str):
        meant = _unquoted(value)
        if _is_of(kind, meant) and _is_within(kind, meant, facts):
            return f"write it without quotes: {write(meant)}"
        if kind == TEXTS:
            return f"write a list: {write([value])}"
    if kind == TEXTS and isinstance(value, list):
        return "put every item in quotes"
    if kind is str and facts.choices is None and isinstance(value, (bool, int, float)):
        return f"write it in quotes: {write(toml_of(value))}"
    if kind is int and isinstance(value, float) and value.is_integer():
        whole = int(value)
        if _is_within(kind, whole, facts):
            return f"write {write(whole)}"
    return f"the default is {_cut(write(default_of(attribute)))}"


def _unquoted(text: str) -> Any:
    """The number or truth value a quoted text was meant to be, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
