"""Engines of other packages under a name of the configuration's choosing.

Such an engine knows one name, its own, also where the configuration has two of it. What
is here passes everything on and tells the configured name, in errors too: so the two
are apart in the log, in traces and in metrics. Built-in engines are told their name.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    Queued,
    SpeechRecognizer,
    SpeechSynthesizer,
    StreamingRecognizer,
    VisionModel,
    VoiceActivityDetector,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.protocols import (
        ChatMessage,
        PcmChunk,
        RecognitionStream,
        ToolCall,
        ToolSpec,
        Transcript,
        VoiceActivityStream,
    )

EngineT = TypeVar("EngineT", bound=Engine)
T = TypeVar("T")


@attrs.frozen
class _Name:
    """The configured name, in place of the engine's own."""

    told: str
    own: str

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Around calls of the engine: tell its errors under the configured name."""
        try:
            yield
        except EngineError as error:
            # An engine made of others raises theirs too, under their names.
            if error.engine == self.own:
                error.engine = self.told
            raise


class _Named(Generic[EngineT]):
    """What all kinds have in common."""

    def __init__(self, name: str, engine: EngineT) -> None:
        self.name = name
        self._engine = engine
        self._name = _Name(name, engine.name)

    @property
    def is_busy(self) -> bool:
        """See `Queued`; never for an engine without a queue."""
        engine: object = self._engine
        with self._name.in_errors():
            return isinstance(engine, Queued) and engine.is_busy

    async def load(self) -> None:
        """See `Engine`."""
        with self._name.in_errors():
            await self._engine.load()

    async def aclose(self) -> None:
        """See `Engine`."""
        with self._name.in_errors():
            await self._engine.aclose()


class _NamedDetector(_Named[VoiceActivityDetector]):
    def open_stream(self) -> VoiceActivityStream:
        with self._name.in_errors():
            return _NamedVoiceStream(self._engine.open_stream(), self._name)


class _NamedRecognizer(_Named[SpeechRecognizer]):
    async def transcribe(self, pcm: bytes) -> Transcript:
        with self._name.in_errors():
            return await self._engine.transcribe(pcm)


class _NamedStreamingRecognizer(_NamedRecognizer):
    def __init__(self, name: str, engine: StreamingRecognizer) -> None:
        super().__init__(name, engine)
        self._open = engine.open_stream

    @asynccontextmanager
    async def open_stream(self) -> AsyncIterator[RecognitionStream]:
        with self._name.in_errors():
            async with self._open() as stream:
                yield _NamedRecognition(stream, self._name)


class _NamedLanguageModel(_Named[LanguageModel]):
    def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AbstractAsyncContextManager[AsyncIterator[str | ToolCall]]:
        return _pieces(lambda: self._engine.reply(messages, tools), self._name)


class _NamedSynthesizer(_Named[SpeechSynthesizer]):
    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        return _pieces(lambda: self._engine.synthesize(sentence), self._name)


class _NamedVisionModel(_Named[VisionModel]):
    async def describe(self, image: bytes, question: str) -> str:
        with self._name.in_errors():
            return await self._engine.describe(image, question)


@asynccontextmanager
async def _pieces(
    ask: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]], name: _Name
) -> AsyncIterator[AsyncIterator[T]]:
    with name.in_errors():
        async with ask() as pieces:
            yield _NamedPieces(pieces, name)


class _NamedPieces(Generic[T]):
    """An answer; whoever iterates meets its errors before its context manager does."""

    def __init__(self, pieces: AsyncIterator[T], name: _Name) -> None:
        self._pieces = pieces
        self._name = name

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        with self._name.in_errors():
            return await anext(self._pieces)


class _NamedVoiceStream:
    """A `VoiceActivityStream`."""

    def __init__(self, stream: VoiceActivityStream, name: _Name) -> None:
        self._stream = stream
        self._name = name

    @property
    def window_samples(self) -> int:
        return self._stream.window_samples

    async def accept(self, pcm: bytes) -> Sequence[float]:
        with self._name.in_errors():
            return await self._stream.accept(pcm)

    def reset(self) -> None:
        with self._name.in_errors():
            self._stream.reset()


class _NamedRecognition:
    """A `RecognitionStream`."""

    def __init__(self, stream: RecognitionStream, name: _Name) -> None:
        self._stream = stream
        self._name = name

    @property
    def says_ended(self) -> bool:
        with self._name.in_errors():
            return self._stream.says_ended

    async def accept(self, pcm: bytes) -> None:
        with self._name.in_errors():
            await self._stream.accept(pcm)

    async def transcript(self) -> Transcript:
        with self._name.in_errors():
            return await self._stream.transcript()


_NAMED: Mapping[type, Callable[[str, Any], Engine]] = {
    VoiceActivityDetector: _NamedDetector,
    SpeechRecognizer: _NamedRecognizer,
    StreamingRecognizer: _NamedStreamingRecognizer,
    LanguageModel: _NamedLanguageModel,
    SpeechSynthesizer: _NamedSynthesizer,
    VisionModel: _NamedVisionModel,
}


def under_name(name: str, engine: Engine, protocol: type) -> Engine:
    """The engine as one that is called `name`, with all it can do.

    `protocol` is that of its kind: one object may serve several.
    """
    if protocol is SpeechRecognizer and isinstance(engine, StreamingRecognizer):
        protocol = StreamingRecognizer
    return _NAMED[protocol](name, engine)
