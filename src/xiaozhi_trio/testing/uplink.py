"""What becomes of a microphone's sound on its way to the server.

Firmware 2.4.2 encodes with DTX, so that silence costs a byte a packet, and keeps at most
40 packets that it could not send yet, the newest ones (`audio_service.h`,
`audio_service.cc`). The network may bring packets late and in bursts; lost they are in
the device only, for the connection is TCP.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import numpy as np
import trio

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.engines.protocols import LISTENING_RATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SEND_QUEUE_PACKETS: Final = 40

_SILENT_MS_BEFORE_DTX: Final = 200
"""libopus encodes so much silence as it is before it falls silent itself."""
_SILENCE_LEVEL: Final = 50.0
_SILK_WIDEBAND: Final = {10: 8, 20: 9, 40: 10, 60: 11}
"""Configuration number (RFC 6716, 3.1) by packet length in ms."""

Dtx: TypeAlias = Literal["off", "packets", "gaps"]
"""Silence as it is, as packets of one byte, or as no packets at all."""


@attrs.frozen(kw_only=True)
class UplinkProfile:
    """How good the way to the server is."""

    loss: float = 0.0
    """Part of the packets that the device loses."""
    jitter_ms: int = 0
    """Packets are up to so late, at random, and stay in order."""
    burst: int = 1
    """So many packets arrive together."""
    dtx: Dtx = "off"
    seed: int = 1
    """Of what is random."""


class Uplink:
    """The encoder and the send queue. Run it beside what fills it."""

    def __init__(
        self,
        send: Callable[[bytes, int], Awaitable[None]],
        *,
        frame_ms: int,
        profile: UplinkProfile,
    ) -> None:
        """`send` takes a packet and its timestamp."""
        self._send = send
        self._frame_ms = frame_ms
        self._profile = profile
        self._random = random.Random(profile.seed)  # noqa: S311 - weather, not secrets
        self._encoder = OpusEncoder(LISTENING_RATE, frame_ms=frame_ms, complexity=0)
        self._queue: deque[tuple[bytes, int]] = deque()
        self._silent_ms = 0
        self._news = trio.lowlevel.ParkingLot()
        self.dropped = 0
        """Packets that were too old to be kept."""

    def push(self, pcm: bytes, timestamp: int = 0) -> None:
        """Encode one packet's sound and queue it."""
        packet = self._packet_for(pcm)
        if packet is None or self._random.random() < self._profile.loss:
            return
        if len(self._queue) >= SEND_QUEUE_PACKETS:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append((packet, timestamp))
        self._news.unpark_all()

    def _packet_for(self, pcm: bytes) -> bytes | None:
        quiet = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)).mean() < _SILENCE_LEVEL
        self._silent_ms = self._silent_ms + self._frame_ms if quiet else 0
        if self._profile.dtx == "off" or self._silent_ms <= _SILENT_MS_BEFORE_DTX:
            return self._encoder.encode(pcm)
        if self._profile.dtx == "gaps":
            return None
        return bytes([_SILK_WIDEBAND[self._frame_ms] << 3])

    async def run(self) -> None:
        """Send what is queued, for ever. Raises what `send` raises."""
        while True:
            while not self._queue:
                await self._news.park()
            late = (self._profile.burst - 1) * float(self._frame_ms)
            late += self._random.random() * self._profile.jitter_ms
            await trio.sleep(late / 1000)
            for _ in range(min(self._profile.burst, len(self._queue))):
                packet, timestamp = self._queue.popleft()
                await self._send(packet, timestamp)
