"""Where log lines go: to stderr, one line an event, without secrets.

Lines are written by whoever logs: no queue, no thread, and no coroutine sink,
which under Trio would silently deliver nothing. Lines of libraries, and Python's
warnings, come through here as well.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from xiaozhi_trio.telemetry.lines import json_line, text_line
from xiaozhi_trio.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loguru import Message, Record

    from xiaozhi_trio.config.settings import LoggingSettings

_redactor = Redactor()
"""One a process, as its log is."""

_LIBRARY_LEVELS: Mapping[str, Mapping[int, str]] = {
    # A line for each request: ours tell the same with the engine and the turn.
    "httpx": {logging.INFO: "DEBUG"},
    "httpx2": {logging.INFO: "DEBUG"},
    "mcp": {logging.INFO: "DEBUG"},
    "huggingface_hub": {logging.INFO: "DEBUG"},
    "faster_whisper": {logging.INFO: "DEBUG"},
    # It blames the server for what peers send; the connection guard tells what it means.
    "trio-websocket": {
        logging.CRITICAL: "WARNING",
        logging.ERROR: "WARNING",
        logging.WARNING: "DEBUG",
    },
}
"""By a logger's first name; levels not named here stay, but for DEBUG."""


def hide_secret(value: str) -> None:
    """Write `***` in place of this text in every line from now on."""
    _redactor.hide(value)


def configure_logging(
    settings: LoggingSettings,
    *,
    json: bool | None = None,
    level: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Send all logging to one stream; a later call replaces an earlier one.

    `json` and `level` stand above the settings. Without a stream it is `sys.stderr`,
    looked up at each line, in colour where that is a terminal and `NO_COLOR` is unset.
    """
    as_json = settings.json if json is None else json
    lowest = settings.level if level is None else level.upper()

    def write(message: Message) -> None:
        target = sys.stderr if stream is None else stream
        if as_json:
            line = json_line(message.record, _redactor.redact)
        else:
            colour = target.isatty() and not os.environ.get("NO_COLOR")
            line = text_line(message.record, _redactor.redact, colour=colour)
        target.write(f"{line}\n")
        target.flush()

    logger.remove()
    # Variables may hold secrets: diagnose and backtrace would print them.
    logger.add(
        write, level=lowest, format=_unformatted, colorize=False, diagnose=False, backtrace=False
    )
    logging.basicConfig(handlers=[_Bridge()], level=_standard_level(lowest), force=True)
    warnings.showwarning = _log_warning


class _Bridge(logging.Handler):
    """Hands the lines of libraries over to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        bound = logger.bind(logger=record.name).opt(exception=record.exc_info)
        bound.log(_level_of(record), record.getMessage())


def _level_of(record: logging.LogRecord) -> str:
    moved = _LIBRARY_LEVELS.get(record.name.partition(".")[0], {}).get(record.levelno)
    if moved is not None:
        return moved
    if record.levelno >= logging.CRITICAL:
        return "CRITICAL"
    if record.levelno >= logging.ERROR:
        return "ERROR"
    if record.levelno >= logging.WARNING:
        return "WARNING"
    # A library's DEBUG may hold whole requests: dialogues, headers. It takes TRACE to see it.
    return "INFO" if record.levelno >= logging.INFO else "TRACE"


def _standard_level(lowest: str) -> int:
    """The level below which libraries need not even make a record."""
    if lowest == "TRACE":
        return logging.DEBUG
    return max(logging.INFO, logger.level(lowest).no)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # Where warnings go is decided here, and the source is on the reader's disk.
    del file, line
    logger.bind(
        category=category.__name__, text=str(message), source=f"{filename}:{lineno}"
    ).warning("python warning")


def _unformatted(_: Record) -> str:
    """Loguru's own line is not used: the sink makes it from the record."""
    return ""
