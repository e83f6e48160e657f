from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from xiaozhi_trio.testing.server_process import ServerProcessError, server_process

if TYPE_CHECKING:
    from pathlib import Path

REMOTE_ENGINES = """
[asr]
engine = "openai"
[llm]
engine = "openai"
[tts]
engine = "openai"
[asr.openai]
base_url = "http://127.0.0.1:9/v1"
[llm.openai]
base_url = "http://127.0.0.1:9/v1"
[tts.openai]
base_url = "http://127.0.0.1:9/v1"
"""


@pytest.mark.sockets
def test_a_server_that_does_not_start_is_shown_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerProcessError, match=r"(?s)ended with 2:.*nonsense"),
        server_process(tmp_path, "[nonsense]\n"),
    ):
        pytest.fail("it began to serve")


@pytest.mark.sockets
def test_a_server_whose_engines_fail_is_shown_with_their_reasons(tmp_path: Path) -> None:
    missing = tmp_path / "no-models"
    config = f'{REMOTE_ENGINES}\n[models]\ndirectory = "{missing}"\nsources = []\n'
    with (
        pytest.raises(ServerProcessError, match=r"(?s)engines failed: .*silero"),
        server_process(tmp_path, config, engine_seconds=20),
    ):
        pytest.fail("it was taken for ready")


@pytest.mark.sockets
@pytest.mark.models
def test_a_server_runs_for_the_block_and_stops_by_itself(tmp_path: Path) -> None:
    with server_process(tmp_path, REMOTE_ENGINES) as server:
        assert server.health()["status"] == "ok"
        assert httpx.get(server.ota_url).is_success
        assert server.websocket_url.startswith("ws://127.0.0.1:")
        (listens,) = server.log("gateway listens")
        assert str(httpx.URL(server.websocket_url).port) in listens["addresses"]
    with pytest.raises(httpx.ConnectError):
        server.health()
