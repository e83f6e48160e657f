"""Opus packets from and to PCM, over PyOgg's bindings of libopus.

PCM is signed 16-bit little-endian mono, as `bytes`. Both classes own a native
codec state, freed when they are collected; neither may be used by two threads at
a time. libopus lets go of the GIL while it works.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Final

from xiaozhi_trio.audio import libopus

_MAX_PACKET_BYTES: Final = 1275 * 6
"""RFC 6716: at most 1275 bytes a frame; 120 ms are six 20 ms frames at the most."""
_MAX_PACKET_MS: Final = 120
_SAMPLE_BYTES: Final = 2


class OpusError(Exception):
    """libopus refused a packet or a setting."""


def _check(opus: Any, code: int) -> int:
    if code < 0:
        raise OpusError(opus.opus_strerror(code).decode("ascii", "replace"))
    return code


class OpusDecoder:
    """Decodes one stream of packets of any length up to 120 ms."""

    def __init__(self, sample_rate: int) -> None:
        """`sample_rate` in Hz is that of the PCM wanted, whatever the sender encoded at."""
        self._opus: Any = libopus.bindings()
        error = ctypes.c_int()
        self._state = self._opus.opus_decoder_create(sample_rate, 1, ctypes.byref(error))
        _check(self._opus, error.value)
        weakref.finalize(self, self._opus.opus_decoder_destroy, self._state)
        self._capacity = sample_rate * _MAX_PACKET_MS // 1000
        self._pcm = (ctypes.c_int16 * self._capacity)()

    def decode(self, packet: bytes) -> bytes:
        """PCM of one packet, as long as the packet says. Raises `OpusError` on a corrupt one."""
        data = (ctypes.c_ubyte * len(packet)).from_buffer_copy(packet)
        samples = _check(
            self._opus,
            self._opus.opus_decode(self._state, data, len(packet), self._pcm, self._capacity, 0),
        )
        return ctypes.string_at(self._pcm, samples * _SAMPLE_BYTES)


class OpusEncoder:
    """Encodes one stream of speech into packets of a fixed length."""

    def __init__(
        self, sample_rate: int, *, frame_ms: int, bitrate: int = 24_000, complexity: int = 5
    ) -> None:
        """`sample_rate` in Hz (an Opus rate), `frame_ms` 5 to 120, `bitrate` in bit/s."""
        self._opus: Any = libopus.bindings()
        error = ctypes.c_int()
        self._state = self._opus.opus_encoder_create(
            sample_rate, 1, self._opus.OPUS_APPLICATION_AUDIO, ctypes.byref(error)
        )
        _check(self._opus, error.value)
        weakref.finalize(self, self._opus.opus_encoder_destroy, self._state)
        self.frame_samples = sample_rate * frame_ms // 1000
        """Samples of PCM in one packet."""
        self.frame_bytes = self.frame_samples * _SAMPLE_BYTES
        """Bytes of PCM in one packet."""
        self._packet = (ctypes.c_ubyte * _MAX_PACKET_BYTES)()
        self._control(self._opus.OPUS_SET_BITRATE_REQUEST, bitrate)
        self._control(self._opus.OPUS_SET_COMPLEXITY_REQUEST, complexity)
        self._control(self._opus.OPUS_SET_SIGNAL_REQUEST, self._opus.OPUS_SIGNAL_VOICE)

    def _control(self, request: int, value: int) -> None:
        code = self._opus.opus_encoder_ctl(self._state, request, self._opus.opus_int32(value))
        _check(self._opus, code)

    def encode(self, pcm: bytes) -> bytes:
        """One packet of exactly `frame_bytes` of PCM. Raises `ValueError` for any other length."""
        if len(pcm) != self.frame_bytes:
            raise ValueError(f"{len(pcm)} bytes of PCM, one packet takes {self.frame_bytes}")
        samples = (ctypes.c_int16 * self.frame_samples).from_buffer_copy(pcm)
        size = _check(
            self._opus,
            self._opus.opus_encode(
                self._state, samples, self.frame_samples, self._packet, _MAX_PACKET_BYTES
            ),
        )
        return ctypes.string_at(self._packet, size)
