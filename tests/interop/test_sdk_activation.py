"""xiaozhi-sdk 0.5.1 activates itself at a server that has nothing to activate."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    RunProgram = Callable[..., AbstractContextManager[Mapping[str, Any]]]

pytestmark = [pytest.mark.interop, pytest.mark.sockets]

DRIVER = Path(__file__).with_name("drive_sdk_activation.py")
DRIVER_SECONDS = 60.0


def test_activation_is_not_asked_for_and_granted_to_who_asks(
    sdk_python: Path, run_program: RunProgram, tmp_path: Path
) -> None:
    with run_program("scripted_server.py", tmp_path / "state", "--authentication") as server:
        driven = subprocess.run(
            [sdk_python, DRIVER, server["ota_url"]],
            cwd=tmp_path,
            capture_output=True,
            timeout=DRIVER_SECONDS,
            text=True,
        )
    assert driven.returncode == 0, driven.stderr
    visit = json.loads(driven.stdout.splitlines()[-1])
    assert not visit["told_to_activate"]
    assert visit["active"]
    # Once active it dials again with the token it has, and says "hi".
    assert visit["token"]
    assert len(set(visit["sessions"])) == 2
    said = [body["text"] for body in visit["messages"] if body["type"] == "stt"]
    assert said == ["hi"]
