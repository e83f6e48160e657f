"""Acoustic echo cancellation: a microphone's audio without the device's own speech.

For firmware built with `CONFIG_USE_SERVER_AEC`: it stamps what it records with the
timestamps of the packets that it has just played, which are ours (firmware 2.4.2,
`audio/audio_service.cc`). They tell within a packet or two which speech is in an echo;
the rest of the delay, the room and the loudspeaker are learnt by WebRTC's AEC3. That
comes with the optional package pywebrtc-audio; how it was chosen is in docs/echo.md.
"""

from __future__ import annotations

from collections import deque
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from xiaozhi_trio.audio.opus import OpusDecoder, OpusError

if TYPE_CHECKING:
    import numpy.typing as npt

Samples: TypeAlias = "npt.NDArray[np.int16]"

_RATE: Final = 16_000
_SAMPLE_BYTES: Final = 2
_BYTES_PER_MS: Final = _RATE * _SAMPLE_BYTES // 1000

_UNDECODED_PACKETS: Final = 128
_REMEMBERED_MS: Final = 8_000
"""Of speech sent: what a device holds at most (40 packets), its network and its room."""
_AHEAD_MS: Final = 120
"""How much later the speech may be that is put beside a recording than its stamp says.

Up to three stamps wait in the device to be used, so that a recording may already hold
the echo of the two packets after the one it is stamped with. The canceller finds an
echo that comes up to some 400 ms after its cause, not one that comes long before it.
"""
_TOLERANCE_MS: Final = 150
"""Stamps come by whole packets and waver by two; less than this is no change of the delay."""
_UNSTAMPED_MS: Final = 400
"""Audio without a stamp for as long as this was recorded while nothing was played."""
_TAIL_MS: Final = 1_000
"""How long a room may still answer."""
_LEARNT_DB: Final = 20.0
"""An echo weakened by so much over `_LEARNING_MS` is understood."""
_LOST_DB: Final = 6.0
"""And one that is weakened by less is so no more, or a voice is louder by far."""
_INAUDIBLE: Final = 60.0
"""Mean amplitude (of 32,768) under which there is no echo to be understood."""
_LEARNING_MS: Final = 1_000
_PAUSE_MS: Final = 500
"""Packets sent at a longer distance are of two replies, with silence between them."""


def can_cancel_echo() -> bool:
    """Whether the package that does the work is installed (extra `aec`)."""
    return find_spec("pywebrtc_audio") is not None


class _Learning:
    """Whether echoes go away."""

    def __init__(self) -> None:
        self.is_done = False
        self._heard_ms = 0.0
        self._recorded = 0.0
        self._left = 0.0

    def note(self, recorded: Samples, played: Samples, left: Samples) -> None:
        """Compare what was recorded while something played with what is left of it."""
        if not played.any():
            return
        milliseconds = len(recorded) * 1000 / _RATE
        keep = max(0.0, 1 - milliseconds / _LEARNING_MS)
        self._heard_ms += milliseconds
        self._recorded = keep * self._recorded + _energy(recorded)
        self._left = keep * self._left + _energy(left)
        if self._heard_ms >= _LEARNING_MS:
            wanted_db = _LOST_DB if self.is_done else _LEARNT_DB
            is_weak = self._left * 10 ** (wanted_db / 10) <= self._recorded
            self.is_done = is_weak or self._recorded <= _INAUDIBLE**2 * _LEARNING_MS * _RATE / 1000


def _energy(samples: Samples) -> float:
    return float(np.square(samples, dtype=np.float64).sum())


class EchoCanceller:
    """One device's. `sent` may be called in another thread than `cancel`."""

    def __init__(self) -> None:
        """Raises `ImportError` where `can_cancel_echo` is false."""
        from pywebrtc_audio import EchoCanceller as Aec3

        self._aec = Aec3(sample_rate=_RATE)
        self._decoder = OpusDecoder(_RATE)
        self._undecoded: deque[tuple[bytes, int]] = deque(maxlen=_UNDECODED_PACKETS)
        self._speech = bytearray()
        self._dropped = 0
        """Bytes of speech that are remembered no more: those before `_speech`."""
        self._starts: dict[int, int] = {}
        """Where the speech of a packet begins, in bytes since the first one, by timestamp."""
        self._last_timestamp = 0
        self._place = 0
        """Where in the speech the next recording is."""
        self._unstamped_ms = _UNSTAMPED_MS + _TAIL_MS
        """How long no recording had a stamp of ours."""
        self._learning = _Learning()

    @property
    def is_aligned(self) -> bool:
        """Recordings of late tell what was playing, so that there is an echo to be found."""
        return self._unstamped_ms < _UNSTAMPED_MS

    @property
    def is_learning(self) -> bool:
        """There is speech of ours in the room, and it is not known yet what becomes of it."""
        return self.is_aligned and not self._learning.is_done

    @property
    def is_trusted(self) -> bool:
        """What is left of a recording is what others said: the echo was seen to go away."""
        return self.is_aligned and self._learning.is_done

    def is_needed(self, timestamp: int) -> bool:
        """Whether audio stamped so may hold an echo; it is as good as it is where not."""
        return timestamp > 0 or self._unstamped_ms < _UNSTAMPED_MS + _TAIL_MS

    def sent(self, packet: bytes, timestamp: int) -> None:
        """Take note of an Opus packet sent to the device, and of the timestamp it had (ms)."""
        self._undecoded.append((packet, timestamp))

    def cancel(self, pcm: bytes, timestamp: int) -> bytes:
        """What was recorded, without the echo; `timestamp` is its stamp, 0 for none.

        Until `is_trusted` it is as it came: half of an echo is harder to tell from what
        somebody says than all of it. PCM at 16 kHz, as long as it came. Takes half a
        millisecond for 60 ms, without the GIL.
        """
        if not pcm:
            return pcm
        self._decode()
        self._find(timestamp, len(pcm) // _BYTES_PER_MS)
        ahead = self._place + _AHEAD_MS * _BYTES_PER_MS
        self._place += len(pcm)
        near = np.frombuffer(pcm, "<i2")
        far = self._played(ahead, len(pcm)) if self.is_aligned else np.zeros_like(near)
        clean = self._aec.process(near, far).astype("<i2")
        self._learning.note(near, far, clean)
        return bytes(clean.tobytes()) if self.is_trusted else pcm

    def _find(self, timestamp: int, milliseconds: int) -> None:
        place = self._starts.get(timestamp)
        if place is None:
            self._unstamped_ms += milliseconds
            return
        is_off = abs(place - self._place) > _TOLERANCE_MS * _BYTES_PER_MS
        if is_off and self.is_aligned:
            self._learning = _Learning()
        if is_off or not self.is_aligned:
            self._place = place
            # Its echo is coming, and what is fed from now on begins later.
            begun = self._played(place, _AHEAD_MS * _BYTES_PER_MS)
            self._aec.process(np.zeros_like(begun), begun)
        self._unstamped_ms = 0

    def _played(self, place: int, size: int) -> Samples:
        begin = max(place - self._dropped, 0)
        return np.frombuffer(bytes(self._speech[begin : begin + size]).ljust(size, b"\0"), "<i2")

    def _decode(self) -> None:
        while self._undecoded:
            packet, timestamp = self._undecoded.popleft()
            try:
                pcm = self._decoder.decode(packet)
            except OpusError:
                continue
            if timestamp - self._last_timestamp > _PAUSE_MS:
                self._speech += bytes(_PAUSE_MS * _BYTES_PER_MS)
            self._last_timestamp = timestamp
            self._starts[timestamp] = self._dropped + len(self._speech)
            self._speech += pcm
        excess = len(self._speech) - _REMEMBERED_MS * _BYTES_PER_MS
        if excess > 0:
            del self._speech[:excess]
            self._dropped += excess
            self._starts = {
                timestamp: start
                for timestamp, start in self._starts.items()
                if start >= self._dropped
            }
