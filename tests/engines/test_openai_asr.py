from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio

from xiaozhi_trio.config.engines import OpenAiRecognizerSettings
from xiaozhi_trio.engines.asr.openai import OpenAiRecognizer, wav_file
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.protocols import SpeechRecognizer, Transcript

if TYPE_CHECKING:
    from tests.engines.conftest import Exchange, MemoryServer
    from trio.testing import MockClock

SETTINGS = OpenAiRecognizerSettings(base_url="http://server.test/v1", model="m", api_key="sk-x")
PCM = b"\1\0\2\0" * 800


async def transcribe(
    response: httpx.Response,
    pcm: bytes = PCM,
    settings: OpenAiRecognizerSettings = SETTINGS,
    requests: list[httpx.Request] | None = None,
) -> Transcript:
    def handler(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request)
        return response

    engine = OpenAiRecognizer(settings, transport=httpx.MockTransport(handler))
    await engine.load()
    return await engine.transcribe(pcm)


def test_it_is_a_recognizer() -> None:
    engine = OpenAiRecognizer(SETTINGS)
    assert isinstance(engine, SpeechRecognizer)
    assert engine.name == "openai"


async def test_the_request() -> None:
    requests: list[httpx.Request] = []
    settings = attrs.evolve(SETTINGS, language="zh", prompt="小智")
    await transcribe(httpx.Response(200, json={"text": ""}), settings=settings, requests=requests)
    (request,) = requests
    assert str(request.url) == "http://server.test/v1/audio/transcriptions"
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    for name, value in {
        "model": "m",
        "language": "zh",
        "prompt": "小智",
        "response_format": "json",
    }.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in request.content
    assert b'name="file"; filename="utterance.wav"\r\nContent-Type: audio/wav' in request.content
    assert wav_file(PCM) in request.content


async def test_empty_hints_are_not_sent() -> None:
    requests: list[httpx.Request] = []
    await transcribe(httpx.Response(200, json={"text": ""}), requests=requests)
    assert b'name="language"' not in requests[0].content
    assert b'name="prompt"' not in requests[0].content


@pytest.mark.parametrize("pcm", [PCM, PCM + b"\7"])
def test_the_file(pcm: bytes) -> None:
    with wave.open(io.BytesIO(wav_file(pcm))) as reader:
        assert reader.getparams()[:3] == (1, 2, 16_000)
        assert reader.readframes(10_000) == PCM


@pytest.mark.parametrize(
    ("answer", "language", "transcript"),
    [
        ({"text": " 你好。\n"}, "", Transcript("你好。")),
        ({"text": ""}, "", Transcript("")),
        ({"text": "a", "language": "zh-CN"}, "", Transcript("a", "zh")),
        ({"text": "a", "language": "english"}, "", Transcript("a", "en")),
        ({"text": "a", "language": "Chinese"}, "en", Transcript("a", "zh")),
        ({"text": "a", "language": "klingon"}, "en", Transcript("a", "en")),
        ({"text": "a", "language": None}, "zh", Transcript("a", "zh")),
        ({"text": "a", "code": 20000, "message": "OK"}, "", Transcript("a")),
    ],
)
async def test_transcripts(
    answer: dict[str, object], language: str, transcript: Transcript
) -> None:
    settings = attrs.evolve(SETTINGS, language=language)
    assert await transcribe(httpx.Response(200, json=answer), settings=settings) == transcript


@pytest.mark.parametrize("pcm", [b"", b"\1"])
async def test_no_audio_is_not_sent(pcm: bytes) -> None:
    requests: list[httpx.Request] = []
    transcript = await transcribe(httpx.Response(500), pcm, requests=requests)
    assert (transcript, requests) == (Transcript(""), [])


@pytest.mark.parametrize(
    ("response", "category", "message"),
    [
        (httpx.Response(200, html="<html>login"), Category.BAD_RESPONSE, "no JSON: '<html>login'"),
        (httpx.Response(200, json={"texts": []}), Category.BAD_RESPONSE, "no member text"),
        (httpx.Response(200, json=["text"]), Category.BAD_RESPONSE, "no member text"),
        (httpx.Response(200, json={"text": 5}), Category.BAD_RESPONSE, "no member text"),
        (
            httpx.Response(200, json={"error": {"message": "pay", "code": "Arrearage"}}),
            Category.QUOTA,
            "pay",
        ),
        (httpx.Response(413, text="too large"), Category.BAD_REQUEST, "413"),
    ],
)
async def test_answers_that_are_no_transcript(
    response: httpx.Response, category: Category, message: str
) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        await transcribe(response)
    assert caught.value.category is category


async def test_a_silent_server(autojump_clock: MockClock, memory_server: MemoryServer) -> None:
    async def handler(exchange: Exchange) -> None:
        await trio.sleep(15)
        await exchange.begin(content_type="application/json")
        await exchange.wait_for_disconnect()

    memory_server.handler = handler
    engine = OpenAiRecognizer(SETTINGS, transport=memory_server.transport)
    await engine.load()
    began = trio.current_time()
    with pytest.raises(EngineError, match="within 20 s") as caught:
        await engine.transcribe(PCM)
    assert caught.value.category is Category.TIMEOUT
    assert trio.current_time() - began == pytest.approx(20)
    await engine.aclose()
