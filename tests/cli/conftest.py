from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from loguru import logger

from xiaozhi_trio.cli.command import program
from xiaozhi_trio.telemetry import logging as our_logging
from xiaozhi_trio.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    RunCommand = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory and empty folders, and logging as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XIAOZHI_TRIO_CONFIG", raising=False)
    monkeypatch.setenv("XIAOZHI_TRIO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XIAOZHI_TRIO_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(our_logging, "_redactor", Redactor())
    root = logging.getLogger()
    handlers, level, show = root.handlers[:], root.level, warnings.showwarning
    yield
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.showwarning = show


@pytest.fixture
def run_command() -> RunCommand:
    def run_command(*arguments: str) -> Result:
        return CliRunner().invoke(program, arguments, prog_name="xiaozhi-trio")

    return run_command
