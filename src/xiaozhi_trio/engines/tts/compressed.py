"""MP3 and Ogg Opus decoded while they come in, by FFmpeg through PyAV.

FFmpeg pulls its input. A pull runs in a worker thread and asks the event loop for
the next bytes from there, so that a cancelled pull frees its thread at once and no
thread is held between two pulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import trio

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import PcmChunk

if TYPE_CHECKING:
    from collections.abc import Iterator

Container = Literal["mp3", "ogg"]
"""FFmpeg's name of a format."""

THREADS = 16
"""Pulls at once; one waits for the network most of its time."""

CHUNK_SECONDS = 0.06
"""Least speech worth the way into a thread and back."""

# FFmpeg reads up to 5 MB ahead to learn about streams; speech has one, known at once.
_OPEN_OPTIONS = {"probesize": "2048"}
_BUFFER_BYTES = 4096


class ByteSource(Protocol):
    """Where the encoded bytes come from."""

    async def read_some(self) -> bytes:
        """The next bytes, empty at the end."""


class CompressedSpeechError(ValueError):
    """The bytes cannot be decoded."""


class CompressedSpeech:
    """One encoded answer as PCM, pulled chunk by chunk."""

    def __init__(
        self, source: ByteSource, container: Container, limiter: trio.CapacityLimiter
    ) -> None:
        self._source = _ThreadSource(source)
        self._container = container
        self._limiter = limiter
        self._opened: Any = None
        self._frames: Iterator[Any] | None = None

    async def next_chunk(self) -> PcmChunk | None:
        """The next speech, None at the end.

        Raises `CompressedSpeechError` for bytes that are no such audio, ImportError
        without PyAV, and what the source raises.
        """
        return await trio.to_thread.run_sync(self._pull, limiter=self._limiter)

    def close(self) -> None:
        """Let go of the decoder."""
        self._frames = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _pull(self) -> PcmChunk | None:
        import av

        try:
            return self._collect(av)
        except av.FFmpegError as error:
            self._source.raise_fault()
            raise CompressedSpeechError(str(error)) from error

    def _collect(self, av: Any) -> PcmChunk | None:
        if self._frames is None:
            self._opened = av.open(
                self._source,
                "r",
                format=self._container,
                options=_OPEN_OPTIONS,
                buffer_size=_BUFFER_BYTES,
            )
            self._frames = self._mono_frames(av)
        pcm = bytearray()
        rate = 0
        for frame in self._frames:
            rate = frame.sample_rate
            pcm += bytes(frame.planes[0])[: 2 * frame.samples]
            if len(pcm) >= 2 * rate * CHUNK_SECONDS:
                break
        # FFmpeg takes an error of its source for the end of the stream.
        self._source.raise_fault()
        return PcmChunk(bytes(pcm), rate) if pcm else None

    def _mono_frames(self, av: Any) -> Iterator[Any]:
        resampler = av.AudioResampler(format="s16", layout="mono")
        for frame in self._opened.decode(audio=0):
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


class _ThreadSource:
    """The file-like object that FFmpeg reads in the worker thread."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._ahead = b""
        self._fault: BaseException | None = None

    def read(self, size: int) -> bytes:
        # An exception must not pass through FFmpeg: PyAV would print and drop it.
        try:
            chunk = self._ahead or trio.from_thread.run(self._source.read_some)
        except (EngineError, trio.Cancelled) as fault:
            self._fault = fault
            chunk = b""
        self._ahead = chunk[size:]
        return chunk[:size]

    def raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault
