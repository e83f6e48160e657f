"""Synthesised speech of any rate and chunking into Opus packets of one length."""

from __future__ import annotations

import numpy as np
import soxr

from xiaozhi_trio.audio.opus import OpusEncoder


class SpeechEncoder:
    """Resamples and encodes one sentence after another.

    Made for a worker thread: it holds native state, so one call at a time.
    """

    def __init__(
        self, sample_rate: int, *, frame_ms: int, bitrate: int = 24_000, complexity: int = 5
    ) -> None:
        """The packets' rate in Hz and length in ms; see `OpusEncoder`."""
        self._sample_rate = sample_rate
        self._encoder = OpusEncoder(
            sample_rate, frame_ms=frame_ms, bitrate=bitrate, complexity=complexity
        )
        self._resampler: soxr.ResampleStream | None = None
        self._source_rate = sample_rate
        self._rest = b""

    def encode(self, pcm: bytes, sample_rate: int) -> list[bytes]:
        """Packets completed by these samples; what does not fill one is kept.

        `sample_rate` in Hz may differ between sentences, not within one.
        """
        if sample_rate != self._source_rate:
            self._source_rate = sample_rate
            self._resampler = None
        if sample_rate != self._sample_rate:
            if self._resampler is None:
                self._resampler = soxr.ResampleStream(
                    sample_rate, self._sample_rate, 1, dtype="int16"
                )
            pcm = self._resampler.resample_chunk(np.frombuffer(pcm, np.int16)).tobytes()
        return self._packets(pcm)

    def flush(self) -> list[bytes]:
        """Packets of what is left at the end of a sentence, the last one padded with silence."""
        tail = b""
        if self._resampler is not None:
            empty = np.empty(0, np.int16)
            tail = self._resampler.resample_chunk(empty, last=True).tobytes()
            self._resampler = None
        packets = self._packets(tail)
        if self._rest:
            packets.append(self._encoder.encode(self._rest.ljust(self._encoder.frame_bytes, b"\0")))
            self._rest = b""
        return packets

    def _packets(self, pcm: bytes) -> list[bytes]:
        pcm = self._rest + pcm
        size = self._encoder.frame_bytes
        whole = len(pcm) - len(pcm) % size
        self._rest = pcm[whole:]
        return [self._encoder.encode(pcm[start : start + size]) for start in range(0, whole, size)]
