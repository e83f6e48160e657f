"""How firmware plays what it is sent: a short queue of packets, and silence where it is empty.

The figures are those of firmware 2.4.2 (`audio/audio_service.h`, `audio_service.cc`): 40
packets wait to be decoded, however long they are, the newest is dropped without a word
when they are full, and two decoded frames wait to be played.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from xiaozhi_trio.audio.opus import OpusDecoder, OpusError
from xiaozhi_trio.engines.protocols import LISTENING_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DECODE_QUEUE_PACKETS: Final = 40
PLAYBACK_QUEUE_FRAMES: Final = 2
TIMESTAMPS_KEPT: Final = 3
"""Of packets just played, for the uplink to be stamped with."""

_DECODE_SECONDS: Final = 0.005
"""What an ESP32 takes for a packet; meanwhile the packet is still in the queue."""
_LONGEST_SHOWN_SILENCE: Final = 0.3


@attrs.frozen
class PlayedFrame:
    """A packet that was heard."""

    at: float
    """Trio time at which its sound began."""
    pcm: bytes
    """At `LISTENING_RATE`."""

    @property
    def end(self) -> float:
        """Trio time at which its sound ended."""
        return self.at + len(self.pcm) / 2 / LISTENING_RATE


@attrs.define
class Losses:
    """Packets that came and were never heard."""

    overflow: int = 0
    """The queue was full."""
    reset: int = 0
    """They came for a reply before the decoder was reset for it."""
    deaf: int = 0
    """The device was in another state than speaking."""
    corrupt: int = 0
    """They were no Opus."""


class Loudspeaker:
    """One device's decoder and loudspeaker. Run it beside what fills it."""

    def __init__(self, *, on_frame: Callable[[PlayedFrame], None] = lambda _: None) -> None:
        """`on_frame` is called when the sound of a packet begins."""
        self._on_frame = on_frame
        self._packets: deque[tuple[bytes, int]] = deque()
        self._frames: deque[tuple[bytes, int]] = deque()
        self._came_for_reply = 0
        self._timestamps: deque[int] = deque(maxlen=TIMESTAMPS_KEPT)
        self._decoder = OpusDecoder(LISTENING_RATE)
        self._sounding = False
        self._resets = 0
        self._changed = trio.lowlevel.ParkingLot()
        self.played: list[PlayedFrame] = []
        self.losses = Losses()

    def push(self, packet: bytes, timestamp: int = 0) -> None:
        """Take a packet, or drop it silently where the queue is full."""
        if len(self._packets) >= DECODE_QUEUE_PACKETS:
            self.losses.overflow += 1
            return
        self._packets.append((packet, timestamp))
        self._came_for_reply += 1
        self._changed.unpark_all()

    def reply_announced(self) -> None:
        """A reply is going to come: what comes from now on must not be lost."""
        self._came_for_reply = 0

    def reset(self) -> None:
        """Throw away all that waits to be played; what sounds goes on to its end."""
        self.losses.reset += min(self._came_for_reply, self.waiting)
        self.flush()
        self._decoder = OpusDecoder(LISTENING_RATE)

    def flush(self) -> None:
        """Throw away what waits, of purpose: no loss."""
        self._packets.clear()
        self._frames.clear()
        self._timestamps.clear()
        self._resets += 1
        self._changed.unpark_all()

    def next_timestamp(self) -> int:
        """The timestamp of a packet just played, each given once; 0 where there is none."""
        return self._timestamps.popleft() if self._timestamps else 0

    @property
    def waiting(self) -> int:
        """Packets and frames that wait to be played."""
        return len(self._packets) + len(self._frames)

    @property
    def is_drained(self) -> bool:
        """Nothing waits and nothing sounds."""
        return not self.waiting and not self._sounding

    async def drained(self) -> None:
        """Return once nothing waits and nothing sounds."""
        await trio.lowlevel.checkpoint()
        while not self.is_drained:
            await self._changed.park()

    async def run(self) -> None:
        """Decode and play for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._decode)
            nursery.start_soon(self._play)

    async def _decode(self) -> None:
        while True:
            while not self._packets or len(self._frames) >= PLAYBACK_QUEUE_FRAMES:
                await self._changed.park()
            resets = self._resets
            await trio.sleep(_DECODE_SECONDS)
            if resets != self._resets:
                continue
            packet, timestamp = self._packets.popleft()
            try:
                self._frames.append((self._decoder.decode(packet), timestamp))
            except OpusError:
                self.losses.corrupt += 1
            self._changed.unpark_all()

    async def _play(self) -> None:
        end = trio.current_time()
        while True:
            # A frame that waited follows the last one without a seam, however late we are.
            begin = end
            while not self._frames:
                self._sounding = False
                self._changed.unpark_all()
                await self._changed.park()
                begin = max(end, trio.current_time())
            pcm, timestamp = self._frames.popleft()
            if timestamp:
                self._timestamps.append(timestamp)
            frame = PlayedFrame(begin, pcm)
            self._sounding, end = True, frame.end
            self.played.append(frame)
            self._on_frame(frame)
            self._changed.unpark_all()
            await trio.sleep_until(end)


def sound_of(frames: Sequence[PlayedFrame]) -> bytes:
    """What was heard, with the silences between, the longer ones shortened."""
    pcm = bytearray()
    end = None
    for frame in frames:
        if end is not None:
            silence = min(max(frame.at - end, 0.0), _LONGEST_SHOWN_SILENCE)
            pcm += bytes(round(silence * LISTENING_RATE) * 2)
        pcm += frame.pcm
        end = frame.end
    return bytes(pcm)
