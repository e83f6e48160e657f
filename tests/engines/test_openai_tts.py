from __future__ import annotations

import builtins
import gc
import io
import struct
import wave
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import numpy as np
import orjson
import pytest
import trio

from xiaozhi_trio.config.engines import OpenAiSynthesizerSettings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer
from xiaozhi_trio.engines.tts.openai import OpenAiSynthesizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.engines.conftest import Exchange, MemoryServer
    from trio.testing import MockClock

SETTINGS = OpenAiSynthesizerSettings(
    base_url="http://server.test/v1", model="m", api_key="sk-x", pcm_sample_rate=16_000
)
PCM = (np.sin(np.arange(48_000) / 10) * 12_000).astype("<i2").tobytes()
"""Two seconds at 24 kHz."""


class Pieces(httpx.AsyncByteStream):
    """A body that comes in the pieces given."""

    def __init__(self, pieces: Sequence[bytes], then: Any = None) -> None:
        self._pieces = iter(pieces)
        self._then = then
        self.taken = 0
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            self.taken += 1
            return piece
        if self._then is not None:
            await self._then()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


async def engine_with(
    response: httpx.Response,
    *,
    form: str = "pcm",
    requests: list[httpx.Request] | None = None,
    **settings: Any,
) -> OpenAiSynthesizer:
    def handler(request: httpx.Request) -> httpx.Response:
        if requests is not None:
            requests.append(request)
        return response

    engine = OpenAiSynthesizer(
        attrs.evolve(SETTINGS, format=form, **settings), transport=httpx.MockTransport(handler)
    )
    await engine.load()
    return engine


async def speak(engine: OpenAiSynthesizer, sentence: str = "你好。") -> list[PcmChunk]:
    async with engine.synthesize(sentence) as chunks:
        return [chunk async for chunk in chunks]


async def spoken(
    pieces: Sequence[bytes], content_type: str = "", form: str = "pcm"
) -> list[PcmChunk]:
    response = httpx.Response(200, stream=Pieces(pieces), headers={"content-type": content_type})
    return await speak(await engine_with(response, form=form))


def encoded(codec: str, container: str) -> bytes:
    """`PCM` by FFmpeg."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=24_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.frombuffer(PCM, "<i2").reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate = 24_000
        context = stream.codec_context
        resampler = av.AudioResampler(
            format=context.format, layout="mono", rate=24_000, frame_size=context.frame_size or 960
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_it_is_a_synthesizer() -> None:
    engine = OpenAiSynthesizer(SETTINGS)
    assert isinstance(engine, SpeechSynthesizer)
    assert engine.name == "openai"


async def test_the_request() -> None:
    requests: list[httpx.Request] = []
    engine = await engine_with(httpx.Response(200, content=PCM), requests=requests, speed=1.5)
    await speak(engine)
    (request,) = requests
    assert str(request.url) == "http://server.test/v1/audio/speech"
    assert orjson.loads(request.content) == {
        "model": "m",
        "input": "你好。",
        "voice": "alloy",
        "response_format": "pcm",
        "speed": 1.5,
    }


@pytest.mark.parametrize("sentence", ["", " ", "……", "！？", "🙂"])
async def test_nothing_to_pronounce_asks_nothing(sentence: str) -> None:
    requests: list[httpx.Request] = []
    engine = await engine_with(httpx.Response(500), requests=requests)
    assert await speak(engine, sentence) == []
    assert requests == []


@pytest.mark.parametrize("step", [1, 3, 1001, 100_000])
@pytest.mark.parametrize(
    "content_type", ["audio/pcm", "application/octet-stream", "", "audio/mpeg"]
)
async def test_pcm(step: int, content_type: str) -> None:
    data = PCM[:2000]
    chunks = await spoken(cut(data, step), content_type)
    assert b"".join(chunk.pcm for chunk in chunks) == data
    assert all(chunk.sample_rate == 16_000 and len(chunk.pcm) % 2 == 0 for chunk in chunks)
    assert len(chunks) >= 0.99 * min(len(data) // step, len(data) // 2) - 6


async def test_half_a_sample_at_the_end_is_left_out() -> None:
    assert await spoken([b"\1\2\3\4" * 4, b"\5"]) == [PcmChunk(b"\1\2\3\4" * 4, 16_000)]


@pytest.mark.parametrize("form", ["wav", "pcm", "mp3"])
async def test_wav_whatever_was_asked_for(form: str) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, 22_050, 0, "NONE", ""))
        writer.writeframes(np.repeat(np.frombuffer(PCM, "<i2"), 2).tobytes())
    chunks = await spoken(cut(file.getvalue(), 1001), "audio/wav", form)
    assert b"".join(chunk.pcm for chunk in chunks) == PCM
    assert {chunk.sample_rate for chunk in chunks} == {22_050}


@pytest.mark.parametrize("asked", ["same", "pcm"])
@pytest.mark.parametrize(
    ("codec", "container", "form", "content_type"),
    [
        ("libmp3lame", "mp3", "mp3", "audio/mpeg"),
        ("libopus", "ogg", "opus", "audio/ogg"),
    ],
)
async def test_compressed(
    codec: str, container: str, form: str, content_type: str, asked: str
) -> None:
    data = encoded(codec, container)
    form = form if asked == "same" else asked
    chunks = await spoken(cut(data, 500), content_type, form)
    (rate,) = {chunk.sample_rate for chunk in chunks}
    samples = np.frombuffer(b"".join(chunk.pcm for chunk in chunks), "<i2").astype(float)
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    assert all(len(chunk.pcm) <= 0.2 * 2 * rate for chunk in chunks)
    middle = samples[rate // 2 : -rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * rate / len(middle) == pytest.approx(24_000 / (20 * np.pi), abs=5)
    assert np.abs(middle).max() == pytest.approx(12_000, rel=0.1)


async def test_untagged_mp3_sent_for_pcm_is_told_by_its_type() -> None:
    data = encoded("libmp3lame", "mp3")
    frames = data[data.index(b"\xff\xf3") :]
    chunks = await spoken(cut(frames, 500), "audio/mpeg")
    assert sum(len(chunk.pcm) for chunk in chunks) == pytest.approx(len(PCM), rel=0.1)


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("libopus", "ogg")])
async def test_the_first_speech_does_not_wait_for_the_last(codec: str, container: str) -> None:
    data = encoded(codec, container)
    body = Pieces(cut(data, 256), trio.sleep_forever)
    engine = await engine_with(
        httpx.Response(200, stream=body), form=codec[3:].removesuffix("lame")
    )
    with trio.move_on_after(5) as scope:
        async with engine.synthesize("a") as chunks:
            await anext(chunks)
            # One page of Ogg holds a second of speech.
            assert body.taken * 256 <= (4096 if container == "mp3" else 0.7 * len(data))
            scope.cancel()
            await anext(chunks)
    assert scope.cancelled_caught
    assert body.closed
    gc.collect()


async def test_a_cancelled_pull_frees_its_thread() -> None:
    data = encoded("libmp3lame", "mp3")
    body = Pieces([data[:3000]], trio.sleep_forever)
    engine = await engine_with(httpx.Response(200, stream=body), form="mp3")
    with trio.move_on_after(0.2) as scope:
        async with engine.synthesize("a") as chunks:
            async for _ in chunks:
                pass
    assert scope.cancelled_caught
    assert engine._limiter.borrowed_tokens == 0
    assert body.closed


async def test_a_timeout_reaches_through_the_decoder() -> None:
    data = encoded("libmp3lame", "mp3")
    body = Pieces([data[:3000]], trio.sleep_forever)
    engine = await engine_with(httpx.Response(200, stream=body), form="mp3", timeout_seconds=0.2)
    with pytest.raises(EngineError, match=r"within 0\.2 s") as caught:
        await speak(engine)
    assert caught.value.category is Category.TIMEOUT
    assert body.closed


@pytest.mark.parametrize(
    ("content", "content_type", "form", "category", "message"),
    [
        (b"<html>", "text/html", "pcm", Category.BAD_RESPONSE, "text/html instead of audio"),
        (b"oops", "text/plain", "mp3", Category.BAD_RESPONSE, "text/plain"),
        (b"{", "application/json", "pcm", Category.BAD_RESPONSE, "application/json"),
        (b'{"error": {"message": "pay", "type": "insufficient_quota"}}', "application/json", "pcm",
         Category.QUOTA, "pay"),
        (b"", "audio/pcm", "pcm", Category.BAD_RESPONSE, "no audio"),
        (b"\1", "audio/pcm", "pcm", Category.BAD_RESPONSE, "no audio"),
        (b"", "audio/mpeg", "mp3", Category.BAD_RESPONSE, "mp3 audio cannot be decoded"),
        (b"<html>" * 1000, "audio/mpeg", "mp3", Category.BAD_RESPONSE, "cannot be decoded"),
        (b"OggS" + b"x" * 5000, "audio/ogg", "opus", Category.BAD_RESPONSE, "cannot be decoded"),
        (b"fLaC" + b"x" * 50, "audio/flac", "pcm", Category.BAD_RESPONSE, "FLAC"),
        (b"x" * 50, "audio/wav", "wav", Category.BAD_RESPONSE, "no wav audio"),
        (b"x" * 50, "audio/ogg", "opus", Category.BAD_RESPONSE, "no opus audio"),
        (b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 24_000, 0, 4, 32),
         "audio/wav", "wav", Category.BAD_RESPONSE, "WAV file, but encoding 0x0003"),
    ],
)  # fmt: skip
async def test_answers_that_are_no_speech(
    content: bytes, content_type: str, form: str, category: Category, message: str
) -> None:
    if form in {"mp3", "opus"}:
        pytest.importorskip("av")
    with pytest.raises(EngineError, match=message) as caught:
        await spoken([content], content_type, form)
    assert caught.value.category is category


async def test_speech_is_given_as_it_comes(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.begin(content_type="audio/pcm")
        for _ in range(3):
            await trio.sleep(4)
            await exchange.send(PCM[:960])
        await exchange.wait_for_disconnect()

    memory_server.handler = handler
    engine = OpenAiSynthesizer(
        attrs.evolve(SETTINGS, timeout_seconds=5.0), transport=memory_server.transport
    )
    await engine.load()
    began = trio.current_time()
    async with engine.synthesize("a") as chunks:
        for number in range(3):
            assert await anext(chunks) == PcmChunk(PCM[:960], 16_000)
            assert trio.current_time() - began == pytest.approx(4 * (number + 1))
        with pytest.raises(EngineError, match="within 5 s"):
            await anext(chunks)
    await engine.aclose()


async def test_leaving_early_closes_the_stream() -> None:
    body = Pieces(cut(PCM, 960))
    engine = await engine_with(httpx.Response(200, stream=body))
    async with engine.synthesize("a") as chunks:
        async for _ in chunks:
            break
    assert body.closed
    gc.collect()


@pytest.mark.parametrize("at", ["load", "use"])
async def test_without_pyav(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    data = encoded("libmp3lame", "mp3") if at == "use" else b""
    real_import = builtins.__import__

    def no_av(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr("builtins.__import__", no_av)
    monkeypatch.setattr("importlib.import_module", no_av)
    with pytest.raises(EngineError, match="package av") as caught:
        await spoken([data], "audio/mpeg", "mp3" if at == "load" else "pcm")
    assert caught.value.category is Category.UNAVAILABLE
