"""The lines on which the statements of a TOML document begin.

The parser tells what a document says but not where. This scanner finds the table
headers and the keys of a document that the parser has already accepted, so it
need not judge; what it is not sure of has no line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tomli

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KeyPath = tuple[str | int, ...]
"""Keys from the top of a document; a number, from 0, is a place in a list of tables."""

_STRING = r"""
    \"{3} (?: \\. | [^\\] )*? \"{3,5}   # up to two quotes may stand before the closing three
  | '{3} .*? '{3,5}
  | \" (?: \\. | [^\\"\n] )* \"
  | ' [^'\n]* '
"""
_KEY = rf"(?: {_STRING} | [^\s\[\]{{}}=,.\"'\#]+ )"
_STATEMENT = re.compile(
    rf"""
    (?P<blank> \s+ | \#[^\n]* )
  | (?P<brackets> \[\[? ) [\ \t]* (?P<table> {_KEY} (?: \s*\.\s* {_KEY} )* ) [\ \t]* \]\]?
  | (?P<key> {_KEY} (?: \s*\.\s* {_KEY} )* ) [\ \t]* =
    """,
    re.VERBOSE | re.DOTALL,
)
_VALUE_PART = re.compile(
    rf"""
    (?P<open> [\[{{] ) | (?P<close> [\]}}] ) | (?P<end> \n )
  | {_STRING} | \#[^\n]* | [^\[\]{{}}\n\"'\#]+
    """,
    re.VERBOSE | re.DOTALL,
)


class TomlLines:
    """Where in a document each table and key is stated."""

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self._lines = lines

    def line_of(self, path: KeyPath) -> int | None:
        """The line (from 1) of the statement that holds this key, or None.

        A key inside an inline table or list is found at the statement around it.
        """
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return None


def locate_statements(document: str) -> TomlLines:
    """Scan a valid document whose line ends are plain newlines."""
    lines: dict[KeyPath, int] = {}
    places: dict[KeyPath, int] = {}
    table: KeyPath = ()
    position = 0
    while position < len(document):
        statement = _STATEMENT.match(document, position)
        if statement is None:
            break
        line = document.count("\n", 0, statement.start()) + 1
        position = statement.end()
        if statement["table"] is not None:
            *around, name = _key_path(statement["table"])
            table = (*_placed(around, places), name)
            if statement["brackets"] == "[[":
                places[table] = places.get(table, -1) + 1
                table = (*table, places[table])
            _remember(lines, table, 1, line)
        elif statement["key"] is not None:
            _remember(lines, (*table, *_key_path(statement["key"])), len(table) + 1, line)
            position = _end_of_value(document, position)
    return TomlLines(lines)


def _placed(keys: Sequence[str], places: Mapping[KeyPath, int]) -> KeyPath:
    """The path of a header's keys: a list of tables among them means its last element."""
    path: KeyPath = ()
    for key in keys:
        path = (*path, key)
        if path in places:
            path = (*path, places[path])
    return path


def _remember(lines: dict[KeyPath, int], path: KeyPath, shortest: int, line: int) -> None:
    """Note the path and the tables it implies, at the first statement that names them."""
    for length in range(shortest, len(path)):
        lines.setdefault(path[:length], line)
    lines[path] = line


def _key_path(key: str) -> tuple[str, ...]:
    path: list[str] = []
    node: Any = tomli.loads(f"{key} = 0")
    while isinstance(node, dict):
        name, node = next(iter(node.items()))
        path.append(name)
    return tuple(path)


def _end_of_value(document: str, position: int) -> int:
    depth = 0
    while part := _VALUE_PART.match(document, position):
        position = part.end()
        if part["open"]:
            depth += 1
        elif part["close"]:
            depth -= 1
        elif part["end"] and depth == 0:
            break
    return position
