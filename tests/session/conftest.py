"""The log as a test sees it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the device machine is made of; in this import mode test modules have no package.
sys.path.insert(0, str(Path(__file__).parent / "machine"))


@pytest.fixture
def log_lines() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Gives the fields of every line so far that has the given message."""
    lines: list[tuple[str, dict[str, Any]]] = []

    def sink(line: Any) -> None:
        lines.append((line.record["message"], line.record["extra"]))

    handler = logger.add(sink, level="DEBUG", format="{message}")
    yield lambda message: [extra for text, extra in lines if text == message]
    logger.remove(handler)
