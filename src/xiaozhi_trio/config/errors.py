"""What is wrong with a configuration, told so that it can be put right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen(kw_only=True)
class Problem:
    """One thing to change before the server can start. Never holds the value of a secret."""

    file: str
    """The configuration file, as it was named."""
    line: int | None = None
    """Counted from 1; None where no line is to blame."""
    column: int | None = None
    """Counted from 1; known for broken TOML syntax only."""
    key: str = ""
    """As in the file: `[listening] end_silence_ms`, or `[asr.whisper]` for a whole table."""
    message: str
    """What came and what was expected."""
    fix: str
    """What to do."""

    @property
    def location(self) -> str:
        """`file:line:column`, as far as known."""
        known = (part for part in (self.line, self.column) if part is not None)
        return ":".join([self.file, *map(str, known)])

    def __str__(self) -> str:
        subject = f"{self.key}: " if self.key else ""
        return f"{self.location}: {subject}{self.message}; {self.fix}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are all that were found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
