"""Clients that others wrote, each in an environment of its own, and servers to meet them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    RunProgram = Callable[..., AbstractContextManager[Mapping[str, Any]]]

HERE = Path(__file__).parent
STOP_SECONDS = 20.0


@pytest.fixture(scope="session")
def sdk_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of an environment with xiaozhi-sdk, kept from run to run."""
    folder = pytestconfig.rootpath / ".setup" / "interop-sdk"
    return environment(folder, HERE / "requirements-sdk.txt")


@pytest.fixture(scope="session")
def client_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of an environment with xiaozhi-client, kept from run to run."""
    folder = pytestconfig.rootpath / ".setup" / "interop-client"
    return environment(folder, HERE / "requirements-client.txt")


@pytest.fixture(scope="session")
def run_program() -> RunProgram:
    """Run one of the servers beside this file for a block; gives what it says of itself."""

    @contextmanager
    def run(name: str, *arguments: object) -> Iterator[Mapping[str, Any]]:
        command = [sys.executable, HERE / name, *map(str, arguments)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                first_line = process.stdout.readline()
                assert first_line, f"{name} ended with {process.wait()}"
                yield json.loads(first_line)
                # The end of its standard input is what stops it.
                process.communicate(timeout=STOP_SECONDS)
                assert process.returncode == 0
            finally:
                process.kill()

    return run


def environment(folder: Path, requirements: Path) -> Path:
    """Make `folder` a virtual environment of what is required, unless it is one already."""
    python = folder / "bin" / "python"
    record = folder / "requirements.sha256"
    wanted = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    if not (record.exists() and record.read_text() == wanted):
        venv.create(folder, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--no-deps", "--no-input", "--quiet"]
        subprocess.run(
            [*install, "--disable-pip-version-check", "--requirement", requirements], check=True
        )
        # Last, so that an installation cut short is begun anew.
        record.write_text(wanted)
    return python
