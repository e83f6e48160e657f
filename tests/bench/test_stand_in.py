from __future__ import annotations

import io
import signal
import socket
import wave
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import httpx
import orjson
import pytest
import trio
from click.testing import CliRunner

from xiaozhi_trio.bench import stand_in
from xiaozhi_trio.bench.line_process import line_process
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.stand_in import PCM_RATE, build_app, serve
from xiaozhi_trio.bench.voice import voice
from xiaozhi_trio.cli import bench as bench_command
from xiaozhi_trio.cli.command import program
from xiaozhi_trio.config.engines import (
    OpenAiLanguageModelSettings,
    OpenAiRecognizerSettings,
    OpenAiSynthesizerSettings,
)
from xiaozhi_trio.engines.asr.openai import OpenAiRecognizer
from xiaozhi_trio.engines.llm.openai import OpenAiLanguageModel
from xiaozhi_trio.engines.protocols import ChatMessage
from xiaozhi_trio.engines.tts.openai import OpenAiSynthesizer

if TYPE_CHECKING:
    from trio.testing import MockClock

URL = "http://stand-in.test/v1"
SCRIPT = Script(
    heard="Tell me.",
    recognition_ms=250,
    first_token_ms=400,
    token_ms=10,
    synthesis_ms=100,
    sentence_ms=600,
)


def transport(script: Script = SCRIPT) -> httpx.ASGITransport:
    return httpx.ASGITransport(build_app(script))


async def ask(path: str, body: bytes, script: Script = SCRIPT) -> httpx.Response:
    async with httpx.AsyncClient(transport=transport(script)) as client:
        return await client.post(URL + path, content=body)


async def test_speech_is_understood_as_scripted(autojump_clock: MockClock) -> None:
    engine = OpenAiRecognizer(OpenAiRecognizerSettings(base_url=URL), transport=transport())
    await engine.load()
    began = trio.current_time()
    assert (await engine.transcribe(bytes(3200))).text == "Tell me."
    assert trio.current_time() - began == pytest.approx(0.25)


async def test_the_reply_comes_in_the_pieces_of_the_script(autojump_clock: MockClock) -> None:
    engine = OpenAiLanguageModel(OpenAiLanguageModelSettings(base_url=URL), transport=transport())
    await engine.load()
    began = trio.current_time()
    async with engine.reply([ChatMessage("user", "Hello.")]) as pieces:
        assert [piece async for piece in pieces] == SCRIPT.reply()
    assert trio.current_time() - began == pytest.approx(0.4 + 0.01 * (len(SCRIPT.reply()) - 1))


async def test_a_reply_that_is_not_to_be_streamed_comes_whole(autojump_clock: MockClock) -> None:
    answer = (await ask("/chat/completions", b'{"messages": []}')).json()
    assert answer["choices"][0]["message"]["content"] == "".join(SCRIPT.reply())


@pytest.mark.parametrize("form", ["pcm", "wav"])
async def test_a_sentence_is_spoken_with_the_voice(form: str, autojump_clock: MockClock) -> None:
    engine = OpenAiSynthesizer(
        OpenAiSynthesizerSettings(base_url=URL, format=form), transport=transport()
    )
    await engine.load()
    began = trio.current_time()
    async with engine.synthesize("Once upon a time.") as chunks:
        heard = [chunk async for chunk in chunks]
    assert trio.current_time() - began == pytest.approx(0.1)
    assert {chunk.sample_rate for chunk in heard} == {PCM_RATE}
    assert b"".join(chunk.pcm for chunk in heard) == voice(600, PCM_RATE)


async def test_speech_can_come_in_pieces_and_is_a_whole_file(autojump_clock: MockClock) -> None:
    pieces = [
        piece
        async for piece in stand_in.StandIn(Script(chunk_ms=100, sentence_ms=250))._pieces(
            voice(250, PCM_RATE)
        )
    ]
    assert [len(piece) for piece in pieces] == [4800, 4800, 2400]
    answer = await ask("/audio/speech", b'{"response_format": "wav"}')
    with wave.open(io.BytesIO(answer.content)) as reader:
        assert (reader.getframerate(), reader.getnframes()) == (PCM_RATE, PCM_RATE * 600 // 1000)


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/audio/speech", b'{"response_format": "mp3"}', 400, "none of pcm and wav"),
        ("/audio/speech", b"[]", 400, "no JSON object"),
        ("/chat/completions", b"{not json", 400, "no JSON object"),
    ],
)
async def test_what_cannot_be_answered_is_refused_as_openai_does(
    path: str, body: bytes, status: int, told: str, autojump_clock: MockClock
) -> None:
    answer = await ask(path, body)
    assert answer.status_code == status
    assert told in answer.json()["error"]["message"]


async def test_a_client_that_leaves_during_its_request_is_let_go() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [],
        "query_string": b"",
    }
    await build_app(SCRIPT)(scope, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.sockets
async def test_it_serves_until_told_to_stop_and_a_taken_port_is_told(monkeypatch) -> None:
    monkeypatch.setattr(stand_in, "_BODY_BYTES", 100)
    shutdown = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(partial(serve, Script(recognition_ms=0), shutdown=shutdown))
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{url}/audio/transcriptions", content=b"RIFF")
                assert answer.json() == {"text": "Tell me."}
                answer = await client.post(f"{url}/audio/transcriptions", content=bytes(101))
                assert answer.status_code == 413
            port = httpx.URL(url).port
            with pytest.raises(OSError, match="in use"):
                await serve(SCRIPT, port=port, shutdown=shutdown)
            shutdown.set()


@pytest.mark.sockets
async def test_in_a_process_of_its_own_it_tells_its_address() -> None:
    with trio.fail_after(30):
        async with line_process("xiaozhi_trio.bench.stand_in", name="stand-in") as process:
            url = (await process.ask("start", script={"first_token_ms": 0}))["base_url"]
            async with httpx.AsyncClient() as client:
                answer = await client.post(
                    f"{url}/chat/completions", content=orjson.dumps({"stream": True})
                )
            assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.sockets
def test_the_command_tells_of_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = CliRunner().invoke(program, ["bench", "--stand-in", str(port)])
    assert outcome.exit_code == 1
    assert f"port {port} (Address already in use); give --stand-in another" in outcome.output


@pytest.mark.sockets
async def test_the_command_keeps_it_up_until_a_signal(monkeypatch) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(click, "echo", tell)
    with trio.fail_after(10):
        await bench_command._stand_in(SCRIPT, 0)
    (url,) = told
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
