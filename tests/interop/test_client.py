"""xiaozhi-client 0.1.5 against the server: no token, no MCP, WebSockets of 2022."""

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

DRIVER = Path(__file__).with_name("drive_client.py")
DRIVER_SECONDS = 60.0


def drive(python: Path, url: str, folder: Path) -> Mapping[str, Any]:
    """Run the client, which writes what it hears into its working directory."""
    driven = subprocess.run(
        [python, DRIVER, url], cwd=folder, capture_output=True, timeout=DRIVER_SECONDS, text=True
    )
    assert driven.returncode == 0, driven.stderr
    result: Mapping[str, Any] = json.loads(driven.stdout.splitlines()[-1])
    return result


def test_a_push_to_talk_turn_is_answered_in_audio_that_the_client_can_decode(
    client_python: Path, run_program: RunProgram, tmp_path: Path
) -> None:
    with run_program("scripted_server.py", tmp_path / "state") as server:
        visit = drive(client_python, server["websocket_url"], tmp_path)
    kinds = [
        " ".join(filter(None, (body["type"], body.get("state")))) for body in visit["messages"]
    ]
    # It says `listen stop` once more as it closes, and may still see the answer to that.
    turn, after = kinds[:6], kinds[6:]
    assert turn == ["hello", "stt", "tts start", "llm", "tts sentence_start", "tts stop"]
    assert after in ([], ["tts stop"])
    _, stt, _, _, sentence, _ = visit["messages"][:6]
    assert stt["text"] == "今天星期几"
    assert sentence["text"] == "今天是星期天。"
    assert visit["lost_early"] == []
    # Seven characters of 60 ms at the 16 kHz the client decodes at, and a packet's rounding.
    assert visit["samples"] == pytest.approx(7 * 960, abs=2 * 960)
    assert visit["level"] > 1000


def test_without_a_token_the_client_is_refused_where_one_is_needed(
    client_python: Path, run_program: RunProgram, tmp_path: Path
) -> None:
    with run_program("scripted_server.py", tmp_path / "state", "--authentication") as server:
        visit = drive(client_python, server["websocket_url"], tmp_path)
    assert visit == {"refused": 401}
