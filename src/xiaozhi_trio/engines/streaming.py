"""Recognisers that take audio as it comes, found and used without trust in their code."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from xiaozhi_trio.engines.edge import EngineBlock, engine_edge
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback import FallbackRecognizer
from xiaozhi_trio.engines.pieces import transcript_fault
from xiaozhi_trio.engines.protocols import StreamingRecognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.engines.protocols import RecognitionStream, SpeechRecognizer, Transcript


def streaming_recognizer(recognizer: SpeechRecognizer | None) -> StreamingRecognizer | None:
    """The recogniser itself where it takes audio as it comes, else None.

    Of a chain it is the engine that would be asked now. What a stream of it fails at is
    asked of the chain again, in one piece: so failures need not be counted twice.
    """
    if isinstance(recognizer, FallbackRecognizer):
        recognizer = recognizer.first
    return recognizer if isinstance(recognizer, StreamingRecognizer) else None


class CheckedStream:
    """A `RecognitionStream` that raises `EngineError` and nothing else."""

    def __init__(self, stream: RecognitionStream, engine: str) -> None:
        self._stream = stream
        self._engine = engine

    @property
    def says_ended(self) -> bool:
        """See `RecognitionStream`."""
        with engine_edge(self._engine, "judging the end"):
            return bool(self._stream.says_ended)

    async def accept(self, pcm: bytes) -> None:
        """See `RecognitionStream`."""
        with engine_edge(self._engine, "taking audio"):
            await self._stream.accept(pcm)

    async def transcript(self) -> Transcript:
        """See `RecognitionStream`; tells the engine that it is from."""
        with engine_edge(self._engine, "recognising"):
            transcript = await self._stream.transcript()
        if fault := transcript_fault(transcript):
            raise EngineError(fault, engine=self._engine, category=EngineErrorCategory.BAD_RESPONSE)
        return attrs.evolve(transcript, engine=self._engine)


@asynccontextmanager
async def recognition_stream(recognizer: StreamingRecognizer) -> AsyncIterator[CheckedStream]:
    """A stream for one utterance. Raises `EngineError`."""
    opened = EngineBlock(recognizer.name, recognizer.open_stream, step="opening a stream")
    async with opened as stream:
        yield CheckedStream(stream, recognizer.name)
