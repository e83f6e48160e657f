"""Speech synthesis by any server with OpenAI's /audio/speech, played as it comes."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Literal

import orjson
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.openai_errors import find_report
from xiaozhi_trio.engines.openai_http import Answer, Body, OpenAiServer
from xiaozhi_trio.engines.protocols import PcmChunk
from xiaozhi_trio.engines.tts.compressed import (
    THREADS,
    CompressedSpeech,
    CompressedSpeechError,
    Container,
)
from xiaozhi_trio.engines.tts.wav_stream import WavError, WavStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import httpx

    from xiaozhi_trio.config.engines import OpenAiSynthesizerSettings

NAME = "openai"

Format = Literal["pcm", "wav", "mp3", "opus"]

_CONTAINERS: dict[Format, Container] = {"mp3": "mp3", "opus": "ogg"}
_OCTETS = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/ogg", "video/ogg"}
)
_MAGIC_BYTES = 12


class OpenAiSynthesizer:
    """`SpeechSynthesizer` over HTTP.

    Servers do not all honour the format asked for; the first bytes decide between
    WAV, Ogg and MP3 with a tag, so that none of them is played as raw samples.
    """

    def __init__(
        self,
        settings: OpenAiSynthesizerSettings,
        *,
        name: str = NAME,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._server = OpenAiServer(name, settings, transport=transport)
        self._limiter = trio.CapacityLimiter(THREADS)

    @property
    def name(self) -> str:
        """The name it is configured by."""
        return self._name

    async def load(self) -> None:
        """Check the settings; the server is not contacted. Raises `EngineError`."""
        if self._settings.format in _CONTAINERS:
            try:
                await trio.to_thread.run_sync(importlib.import_module, "av")
            except ImportError as error:
                raise _without_pyav(self._name) from error
        await self._server.load()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    @contextlib.asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        """Speak one sentence; leaving the block closes the stream.

        Raises `EngineError`, on entering or from the iterator.
        """
        async with contextlib.AsyncExitStack() as stack:
            if any(character.isalnum() for character in sentence):
                body = self._body(sentence)
                request = self._server.post("/audio/speech", body, accept="audio/*")
                answer = await stack.enter_async_context(request)
                await _refuse_what_is_no_audio(answer)
                chunks = self._chunks(answer)
            else:
                chunks = _silence()
            yield await stack.enter_async_context(contextlib.aclosing(chunks))

    def _body(self, sentence: str) -> Body:
        settings = self._settings
        return Body.json(
            {
                "model": settings.model,
                "input": sentence,
                "voice": settings.voice,
                "response_format": settings.format,
                "speed": settings.speed,
            }
        )

    async def _chunks(self, answer: Answer) -> AsyncGenerator[PcmChunk, None]:
        form = _format_of(answer, await answer.peek(_MAGIC_BYTES), self._settings.format)
        if form == "pcm":
            pieces = _pcm_chunks(answer, self._settings.pcm_sample_rate)
        elif form == "wav":
            pieces = _wav_chunks(answer)
        else:
            pieces = _decoded_chunks(answer, _CONTAINERS[form], self._limiter)
        empty = True
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                empty = False
                yield piece
                answer.expect_next()
        if empty:
            raise answer.errors.bad_response("the answer held no audio")


async def _silence() -> AsyncGenerator[PcmChunk, None]:
    nothing: tuple[PcmChunk, ...] = ()
    for chunk in nothing:
        yield chunk


async def _refuse_what_is_no_audio(answer: Answer) -> None:
    if answer.content_type.startswith("audio/") or answer.content_type in _OCTETS:
        return
    body = await answer.read_up_to(1024)
    try:
        report = find_report(orjson.loads(body))
    except orjson.JSONDecodeError:
        report = None
    if report is not None:
        raise answer.errors.reported(report)
    raise answer.errors.bad_response(
        f"the server sent {answer.errors.excerpt(answer.content_type)} instead of audio", body
    )


def _format_of(answer: Answer, beginning: bytes, asked: str) -> Format:
    if beginning.startswith((b"RIFF", b"RF64")):
        return "wav"
    if beginning.startswith(b"OggS"):
        return "opus"
    if beginning.startswith(b"ID3"):
        return "mp3"
    if beginning.startswith(b"fLaC"):
        raise answer.errors.bad_response("the server sent FLAC; set format to one it offers")
    if asked == "mp3":
        return "mp3"
    if asked == "pcm":
        # Without a tag MP3 can only be told from samples by the type it is sent as.
        if answer.content_type in {"audio/mpeg", "audio/mp3"} and _begins_mp3_frame(beginning):
            return "mp3"
        return "pcm"
    raise answer.errors.bad_response(f"the server sent no {asked} audio", beginning)


def _begins_mp3_frame(beginning: bytes) -> bool:
    """Whether a header of MPEG audio layer III begins here (ISO 11172-3, 2.4.1.3)."""
    return len(beginning) > 1 and beginning[0] == 0xFF and beginning[1] & 0xE6 == 0xE2


async def _pcm_chunks(answer: Answer, rate: int) -> AsyncGenerator[PcmChunk, None]:
    odd = b""
    while chunk := await answer.read_some():
        chunk = odd + chunk
        whole = len(chunk) & ~1
        odd = chunk[whole:]
        if whole:
            yield PcmChunk(chunk[:whole], rate)


async def _wav_chunks(answer: Answer) -> AsyncGenerator[PcmChunk, None]:
    stream = WavStream()
    while chunk := await answer.read_some():
        try:
            pcm = stream.feed(chunk)
        except WavError as error:
            raise answer.errors.bad_response(f"the server sent a WAV file, but {error}") from error
        if pcm:
            yield PcmChunk(pcm, stream.sample_rate)


async def _decoded_chunks(
    answer: Answer, container: Container, limiter: trio.CapacityLimiter
) -> AsyncGenerator[PcmChunk, None]:
    speech = CompressedSpeech(answer, container, limiter)
    try:
        while (chunk := await speech.next_chunk()) is not None:
            yield chunk
    except ImportError as error:
        raise _without_pyav(answer.errors.engine) from error
    except CompressedSpeechError as error:
        raise answer.errors.bad_response(
            f"the server's {container} audio cannot be decoded", str(error)
        ) from error
    finally:
        speech.close()


def _without_pyav(engine: str) -> EngineError:
    return EngineError(
        "decoding mp3 and opus needs the package av; install it, or set format to pcm or wav",
        engine=engine,
        category=EngineErrorCategory.UNAVAILABLE,
    )
