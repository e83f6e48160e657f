"""xiaozhi-sdk 0.5.1 against the real server: OTA, a voice turn, a text turn, its tools."""

from __future__ import annotations

import json
import subprocess
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soxr
import trio

from xiaozhi_trio.config.engines import HibariSettings
from xiaozhi_trio.engines.language import has_chinese
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.tts.hibari import HibariSynthesizer
from xiaozhi_trio.testing.server_process import ServerProcess, server_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Visit = Mapping[str, Any]

pytestmark = [pytest.mark.interop, pytest.mark.models, pytest.mark.sockets]

DRIVER = Path(__file__).with_name("drive_sdk.py")
DRIVER_SECONDS = 180.0

SPOKEN = "What is the capital of France?"
TYPED = "请说一句问候的话。"

SHORT_REPLIES = """
[llm.llama]
temperature = 0.0
max_tokens = 24
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("server"), SHORT_REPLIES) as process:
        yield process


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV of `SPOKEN`."""
    path = tmp_path_factory.mktemp("speech") / "question.wav"

    async def synthesise() -> None:
        models = ModelStore(default_model_directory(), sources=("hub", "registry"))
        engine = HibariSynthesizer(HibariSettings(), models)
        await engine.load()
        async with engine.synthesize(SPOKEN) as chunks:
            made = [chunk async for chunk in chunks]
        await engine.aclose()
        samples = np.frombuffer(b"".join(chunk.pcm for chunk in made), np.int16)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(soxr.resample(samples, made[0].sample_rate, 16_000).tobytes())

    trio.run(synthesise)
    return path


@pytest.fixture(scope="module")
def visit(server: ServerProcess, sdk_python: Path, question: Path) -> Visit:
    """What the SDK saw of the server, from OTA to its hanging up."""
    driven = subprocess.run(
        [sdk_python, DRIVER, server.ota_url, question, TYPED],
        cwd=question.parent,
        capture_output=True,
        timeout=DRIVER_SECONDS,
        text=True,
    )
    assert driven.returncode == 0, driven.stderr
    assert "error" not in driven.stderr.lower(), driven.stderr
    result: Visit = json.loads(driven.stdout.splitlines()[-1])
    return result


def kinds(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [" ".join(filter(None, (body["type"], body.get("state")))) for body in messages]


def sentences(turn: Mapping[str, Any]) -> list[str]:
    return [body["text"] for body in turn["messages"] if body.get("state") == "sentence_start"]


def check_order(turn: Mapping[str, Any]) -> None:
    assert kinds(turn["messages"]) == [
        "stt",
        "tts start",
        "llm",
        *["tts sentence_start"] * len(sentences(turn)),
        "tts stop",
    ]


def test_ota_sends_the_sdk_to_the_websocket(server: ServerProcess, visit: Visit) -> None:
    assert visit["websocket_url"] == server.websocket_url
    assert visit["session_id"]
    (answered,) = server.log("ota answered")
    (connected,) = server.log("device connected")
    assert answered["device"] == connected["device"] == "02:22:44:66:88:aa"


def test_a_spoken_question_is_understood_and_answered(visit: Visit) -> None:
    turn = visit["voice_turn"]
    check_order(turn)
    assert "capital of france" in turn["messages"][0]["text"].lower()
    assert "Paris" in " ".join(sentences(turn))
    assert turn["samples"] > 16_000 / 2


def test_a_typed_text_is_answered_in_its_language(visit: Visit) -> None:
    turn = visit["text_turn"]
    check_order(turn)
    assert turn["messages"][0]["text"] == TYPED
    assert has_chinese(" ".join(sentences(turn)))
    assert turn["samples"] > 16_000 / 2


def test_the_sdk_answers_the_mcp_handshake_with_its_tool(
    server: ServerProcess, visit: Visit
) -> None:
    assert visit["explain_url"] == f"{server.http_url}/mcp/vision/explain"
    assert visit["explain_token"]
    (ready,) = server.log("device mcp ready")
    assert ready["tools"] == 1


def test_the_sdk_hangs_up_and_is_gone(server: ServerProcess, visit: Visit) -> None:
    assert not visit["hung_up_early"]
    (gone,) = server.log("device disconnected")
    assert gone["reason"] == "peer_gone"
    assert gone["peer_code"] == 1000
    assert server.health()["sessions"] == 0
