"""What the table of an engine under a name of its own may be called, and may name.

Such a table says `engine`, which a table of settings never does: so what a file means
does not depend on what is installed.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING, Any, Final

from xiaozhi_trio.config.engines import KINDS, built_in_engines, entry_point_group
from xiaozhi_trio.config.values import SettingError, closest, toml_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENGINE: Final = "engine"
"""The key that says which engine it is."""

LONGEST_NAME: Final = 32
"""Characters: the name is a label of metrics and stands in every line of the log."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}")


def engine_of_table(name: str, tables: Mapping[str, Any], section: type[Any]) -> str:
    """The engine that the table `name` chooses; `tables` are all of its kind that choose one.

    Raises `SettingError` for a name that cannot be a label, and where there is no such engine.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingError(
            "came a name that cannot be an engine's, expected "
            f"at most {LONGEST_NAME} ASCII letters, digits, _ and -, the first no _ or -",
            f"rename the table, for example [{KINDS[section]}.cloud]",
        )
    chosen = tables[name][ENGINE]
    if not isinstance(chosen, str):
        raise _mistake(
            "came a value that is no text, expected the name of an engine",
            'write it in quotes, for example engine = "openai"',
        )
    built_in = built_in_engines(section)
    if chosen in built_in:
        return chosen
    known = [*built_in, *_installed(section)]
    expected = f"expected an engine: {', '.join(known)}"
    if chosen == name:
        raise _mistake(
            f"came {toml_of(chosen)}, which is this table itself, {expected}",
            "leave engine out where the table has the settings of the installed engine"
            if name in known
            else "name one of these",
        )
    if chosen in tables:
        raise _mistake(
            f"came {toml_of(chosen)}, which is another named engine, {expected}",
            f"write what [{KINDS[section]}.{chosen}] has as its engine",
        )
    if chosen not in known:
        raise _unknown(chosen, known, expected, KINDS[section])
    return chosen


def _unknown(chosen: str, known: Sequence[str], expected: str, kind: str) -> SettingError:
    likely = closest(chosen, known)
    return _mistake(
        f"came {toml_of(chosen)}, {expected}",
        "name one of these; others come with packages that have an entry point in the group "
        f"{entry_point_group(kind)}"
        if likely is None
        else f"did you mean engine = {toml_of(likely)}?",
    )


def _installed(section: type[Any]) -> Sequence[str]:
    entries = importlib.metadata.entry_points(group=entry_point_group(KINDS[section]))
    return sorted(entries.names - built_in_engines(section).keys())


def _mistake(message: str, fix: str) -> SettingError:
    return SettingError(message, fix, (ENGINE,))
