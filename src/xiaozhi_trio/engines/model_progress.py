"""How far the fetching of a model has come, for a bar on a screen and for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio
from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_SECONDS: Final = 10.0
"""Between two lines of the log about one model."""


@attrs.frozen
class ModelProgress:
    """How far the fetching of one file has come."""

    model: str
    file: str
    done_bytes: int
    """Of this file. May fall back when another source is tried; while a compressed package is
    on its way, the compressed bytes are counted."""
    total_bytes: int
    """Of this file."""
    source: str
    """Kind of the source that is asked: `vendored`, `hub`, `release`, `pypi` or `npm`."""


class ProgressLog:
    """Passes progress on, and writes a line of the log now and then.

    A server that starts for the first time on a slow line must not look as if it hung.
    """

    def __init__(self, also: Callable[[ModelProgress], None] | None = None) -> None:
        self._also = also
        self._next_line = trio.current_time() + LOG_SECONDS

    def __call__(self, progress: ModelProgress) -> None:
        if self._also is not None:
            self._also(progress)
        now = trio.current_time()
        if now >= self._next_line:
            self._next_line = now + LOG_SECONDS
            percent = 100 * progress.done_bytes // max(progress.total_bytes, 1)
            logger.bind(
                model=progress.model, file=progress.file, percent=percent, source=progress.source
            ).info("fetching model")
