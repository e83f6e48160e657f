"""Environments of clients that others wrote: each has its own, with pinned versions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sdk_python(pytestconfig: pytest.Config) -> Path:
    """The interpreter of an environment with xiaozhi-sdk, kept from run to run."""
    requirements = Path(__file__).with_name("requirements-sdk.txt")
    return environment(pytestconfig.rootpath / ".setup" / "interop-sdk", requirements)


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
