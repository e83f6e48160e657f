"""What one WebSocket may send: bounds on message, frames and bytes, held before anything is stored.

Counted is what comes off the network. A session that is slow to read slows the peer
down by TCP; these limits are for a peer that keeps the server busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from xiaozhi_trio.wire.closing import MESSAGE_TOO_BIG, POLICY_VIOLATION, Closing
from xiaozhi_trio.wire.frames import FrameFound, FrameScanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.config.settings import LimitSettings

BURST_SECONDS: Final = 10.0
"""So much at the full rate may come at once: what a network that stalled for that long delivers."""
_CLOSE_FRAME: Final = b"\x88"
"""What a close frame begins with: the last of its message, opcode 8."""


class Allowance:
    """A rate with a burst: a bucket that fills at `rate` a second up to `burst`."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._filled_at = now

    def spend(self, amount: float, now: float) -> bool:
        """Whether there was enough left at this time, in seconds."""
        self._left = min(self._left + (now - self._filled_at) * self._rate, self._burst)
        self._filled_at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True


class Intake:
    """The limits of one connection."""

    def __init__(
        self, limits: LimitSettings, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        now = clock()
        self._limits = limits
        self._clock = clock
        self._scanner = FrameScanner()
        self._frames = Allowance(
            limits.messages_per_second, limits.messages_per_second * BURST_SECONDS, now
        )
        self._bytes = Allowance(
            limits.bytes_per_second,
            max(limits.bytes_per_second * BURST_SECONDS, limits.message_bytes),
            now,
        )
        self.exceeded: Closing | None = None
        """The first limit that was exceeded, which ends the connection."""

    def pass_on(self, data: bytes) -> bytes:
        """What may be handed on of these bytes of the peer: all of them, up to an excess."""
        if self.exceeded is not None:
            return b""
        now = self._clock()
        if not self._bytes.spend(len(data), now):
            self.exceeded = _too_many_bytes(self._limits.bytes_per_second)
            return b""
        for frame in self._scanner.feed(data):
            self.exceeded = self._excess(frame, now)
            if self.exceeded is not None:
                return data[: frame.start]
        return data

    def _excess(self, frame: FrameFound, now: float) -> Closing | None:
        if frame.message_bytes > self._limits.message_bytes:
            return _message_too_large(self._limits.message_bytes)
        if not self._frames.spend(1, now):
            return _too_many_messages(self._limits.messages_per_second)
        return None


def _message_too_large(limit: int) -> Closing:
    return Closing(
        MESSAGE_TOO_BIG,
        "message_too_large",
        f"at most {limit} bytes (limits.message_bytes)",
        "send smaller messages, or raise [limits] message_bytes",
    )


def _too_many_messages(limit: int) -> Closing:
    return Closing(
        POLICY_VIOLATION,
        "too_many_messages",
        f"at most {limit} a second (limits.messages_per_second)",
        "look for a client that sends without pause, or raise [limits] messages_per_second",
    )


def _too_many_bytes(limit: int) -> Closing:
    return Closing(
        POLICY_VIOLATION,
        "too_many_bytes",
        f"at most {limit} a second (limits.bytes_per_second)",
        "look for a client that sends without pause, or raise [limits] bytes_per_second",
    )


class MeteredStream(trio.abc.Stream):
    """A stream of WebSocket frames that ends where a limit is exceeded.

    Whole frames are to be sent over it, one at a time.
    """

    def __init__(self, beneath: trio.abc.Stream, intake: Intake) -> None:
        self.has_sent_close = False
        """Whether a close frame was sent, which nothing may follow (RFC 6455, 5.5.1)."""
        self._beneath = beneath
        self._intake = intake

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Empty at the end of the stream beneath, and after an excess."""
        if self._intake.exceeded is not None:
            await trio.lowlevel.checkpoint()
            return b""
        return self._intake.pass_on(bytes(await self._beneath.receive_some(max_bytes)))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As the stream beneath."""
        self.has_sent_close = self.has_sent_close or data[:1] == _CLOSE_FRAME
        await self._beneath.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream beneath."""
        await self._beneath.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """As the stream beneath."""
        await self._beneath.aclose()
