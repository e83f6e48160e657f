"""WAV that is still being written while it is read.

A server that streams does not know the length yet: RIFF and data sizes are then 0,
0x7FFFFFFF and thereabouts, or 0xFFFFFFFF, and the audio goes on to the end.
"""

from __future__ import annotations

import struct

import numpy as np

from xiaozhi_trio.engines.protocols import HIGHEST_SPEECH_RATE, LOWEST_SPEECH_RATE

HEADER_BYTES = 65_536
"""Bound on everything before the audio; metadata chunks are a few hundred bytes."""

_PCM = 0x0001
_EXTENSIBLE = 0xFFFE
_CHUNK_HEAD = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_SUBFORMAT_OFFSET = 24
_UNKNOWN_FROM = 0x7FFF_0000


class WavError(ValueError):
    """The bytes are no WAV file that can be played."""


class WavStream:
    """Takes a 16-bit PCM WAV file apart as it comes and gives mono samples."""

    def __init__(self) -> None:
        self.sample_rate = 0
        """Hz; 0 until the format is known."""
        self._buffer = bytearray()
        self._channels = 0
        self._read = 0
        self._riff_seen = False
        self._in_data = False
        self._data_left: int | None = None

    def feed(self, chunk: bytes) -> bytes:
        """The whole samples that have come, as signed 16-bit little-endian mono PCM.

        Raises `WavError` for anything but 16-bit PCM with one or two channels.
        """
        self._buffer += chunk
        while not self._in_data:
            if not self._take_header_chunk():
                return b""
        return self._take_samples()

    def _take_header_chunk(self) -> bool:
        """Take one chunk out of the buffer; False where it is not all there yet."""
        if not self._riff_seen:
            return self._take_riff()
        if len(self._buffer) < _CHUNK_HEAD.size:
            return False
        kind, size = _CHUNK_HEAD.unpack_from(self._buffer)
        if kind == b"data":
            self._begin_data(size)
            return True
        # Chunks are padded to an even length.
        whole = _CHUNK_HEAD.size + size + (size & 1)
        if self._read + whole > HEADER_BYTES:
            raise WavError(f"more than {HEADER_BYTES} bytes come before the audio")
        if len(self._buffer) < whole:
            return False
        if kind == b"fmt ":
            self._take_format(bytes(self._buffer[_CHUNK_HEAD.size : _CHUNK_HEAD.size + size]))
        self._drop(whole)
        return True

    def _take_riff(self) -> bool:
        if len(self._buffer) < 12:
            return False
        if not self._buffer.startswith((b"RIFF", b"RF64")) or self._buffer[8:12] != b"WAVE":
            raise WavError("it does not begin with RIFF and WAVE")
        self._riff_seen = True
        self._drop(12)
        return True

    def _take_format(self, body: bytes) -> None:
        if len(body) < _FORMAT.size:
            raise WavError(f"the format chunk has {len(body)} bytes, expected 16 or more")
        encoding, channels, rate, _, _, bits = _FORMAT.unpack_from(body)
        if encoding == _EXTENSIBLE and len(body) >= _SUBFORMAT_OFFSET + 2:
            (encoding,) = struct.unpack_from("<H", body, _SUBFORMAT_OFFSET)
        if encoding != _PCM or bits != 16 or channels not in (1, 2):
            raise WavError(
                f"encoding {encoding:#06x} with {bits} bits and {channels} channels came, expected "
                "PCM (0x0001) with 16 bits and one or two channels"
            )
        if not LOWEST_SPEECH_RATE <= rate <= HIGHEST_SPEECH_RATE:
            raise WavError(
                f"a rate of {rate} Hz came, expected {LOWEST_SPEECH_RATE} to {HIGHEST_SPEECH_RATE}"
            )
        self.sample_rate = rate
        self._channels = channels

    def _begin_data(self, size: int) -> None:
        if not self.sample_rate:
            raise WavError("the audio comes before its format")
        self._data_left = None if size == 0 or size >= _UNKNOWN_FROM else size
        self._in_data = True
        self._drop(_CHUNK_HEAD.size)

    def _take_samples(self) -> bytes:
        available = len(self._buffer)
        if self._data_left is not None:
            available = min(available, self._data_left)
        whole = available - available % (2 * self._channels)
        raw = bytes(self._buffer[:whole])
        self._drop(whole)
        if self._data_left is not None:
            self._data_left -= whole
            if self._data_left < 2 * self._channels:
                # Chunks after the audio are of no interest and must not pile up.
                self._buffer.clear()
        if self._channels == 1:
            return raw
        pairs = np.frombuffer(raw, dtype="<i2").reshape(-1, 2)
        mono: bytes = pairs.mean(axis=1).astype("<i2").tobytes()
        return mono

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._read += size
