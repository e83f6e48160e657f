"""One event of the log as one line, for people or for machines.

Whatever a peer sent arrives here as it is. A line never holds a control
character, a line break, a direction mark or an overlong value, so nobody can
write lines of the log from outside.
"""

from __future__ import annotations

import json
import math
import traceback
from typing import TYPE_CHECKING, Any

from xiaozhi_trio.telemetry.redaction import HIDDEN, is_secret_field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from loguru import Record

LONGEST_VALUE = 1000
"""Characters of a message or field that are kept: reasons with their fix fit in."""
_LONGEST_SEARCHED = 8 * LONGEST_VALUE
LONGEST_TRACEBACK = 20_000
"""Characters of an exception that are kept, from its end."""

_FIRST_FIELDS = ("device", "session", "turn")
_OWN_KEYS = frozenset({"ts", "level", "event", "exception"})
"""What a JSON line has beside the bound fields."""
_COLOURS = {
    "TRACE": "2",
    "DEBUG": "36",
    "INFO": "32",
    "WARNING": "33",
    "ERROR": "31",
    "CRITICAL": "1;31",
}
"""ANSI select-graphic-rendition codes."""


def text_line(record: Record, redact: Callable[[str], str], *, colour: bool = False) -> str:
    """`2026-01-31 12:00:00.000 INFO message key=value …`, an exception indented below."""
    level = f"{record['level'].name:<7}"
    if colour:
        level = f"\033[{_COLOURS.get(record['level'].name, '0')}m{level}\033[0m"
    moment = record["time"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    parts = [moment, level, printable(_clean(record["message"], redact))]
    for name, value in _fields(record["extra"]):
        shown = HIDDEN if is_secret_field(name, value) else _clean(_text_of(value), redact)
        parts.append(f"{printable(name)}={_quoted(shown)}")
    lines = [" ".join(parts)]
    lines += [f"  | {printable(line)}" for line in _traceback(record, redact).splitlines()]
    return "\n".join(lines)


def json_line(record: Record, redact: Callable[[str], str]) -> str:
    """One object: `ts` (ISO 8601 with offset), `level`, `event`, the fields, `exception`."""
    event: dict[str, Any] = {
        "ts": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "event": _clean(record["message"], redact),
    }
    for name, value in _fields(record["extra"]):
        key = f"{name}_" if name in _OWN_KEYS else name
        event[key] = HIDDEN if is_secret_field(name, value) else _json_value(value, redact)
    if exception := _traceback(record, redact):
        event["exception"] = exception
    line = json.dumps(event, ensure_ascii=False)
    if line.isprintable():
        return line
    # Inside of JSON's strings, which alone may hold such characters, this is lossless.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def printable(text: str) -> str:
    """The text with everything that is not plainly visible written as an escape."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def _clean(text: str, redact: Callable[[str], str]) -> str:
    """The beginning of a text without its secrets, and how much was left out."""
    # Redacted before it is cut, so that no half of a secret is left, and not much further
    # than can be seen, so that a peer cannot make a line expensive.
    redacted = redact(text[:_LONGEST_SEARCHED])
    left_out = len(redacted) - LONGEST_VALUE + len(text[_LONGEST_SEARCHED:])
    return redacted if left_out <= 0 else f"{redacted[:LONGEST_VALUE]}…(+{left_out})"


def _fields(extra: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _FIRST_FIELDS:
        if name in extra:
            yield name, extra[name]
    for name, value in extra.items():
        if name not in _FIRST_FIELDS:
            yield name, value


def _text_of(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    escaped = printable(text)
    if escaped and not set(escaped) & set(' "='):
        return escaped
    return '"{}"'.format(escaped.replace('"', '\\"'))


def _json_value(value: Any, redact: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _clean(_text_of(value), redact)


def _traceback(record: Record, redact: Callable[[str], str]) -> str:
    raised = record["exception"]
    if raised is None or raised.value is None:
        return ""
    lines = traceback.format_exception(raised.type, raised.value, raised.traceback)
    text = "".join(lines).rstrip()
    searched = redact(text[-2 * LONGEST_TRACEBACK :])
    return searched if len(text) <= LONGEST_TRACEBACK else f"…{searched[-LONGEST_TRACEBACK:]}"
