"""What a session has to say, in order, until the connection's one writer takes it.

Messages are posted without waiting, so that clean-up code can always end what it
began; audio waits for room, so that a slow peer slows the speech down. What a turn
puts here is stamped with the turn's number and is dropped once the turn is
withdrawn: an interrupted reply is silent at once, however far its tasks have
unwound.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.messages import ServerMessage, encode

if TYPE_CHECKING:
    from collections.abc import Callable

_AUDIO_CAPACITY: Final = 8
"""Packets. Speech is paced, so that more than a few here only means a peer that does not read."""
_MESSAGE_CAPACITY: Final = 256


@attrs.frozen
class _Text:
    text: str
    turn: int | None


@attrs.frozen
class _Audio:
    packet: bytes
    turn: int


_Item: TypeAlias = _Text | _Audio


class Outbox:
    """A bounded queue with one reader, `next_payload`, for one connection."""

    def __init__(self, session_id: str, *, on_overflow: Callable[[], None]) -> None:
        """`on_overflow` is called where the peer makes us answer faster than it reads."""
        self._session_id = session_id
        self._on_overflow = on_overflow
        self._items: deque[_Item] = deque()
        self._audio_waiting = 0
        self._withdrawn = 0
        self._closed = False
        self._changed = trio.lowlevel.ParkingLot()
        self._last_timestamp = 0
        self._opened_at = trio.current_time()
        self.binary_version = 1
        """Framing of audio: 1, 2 or 3, as the client asked in its hello."""
        self.on_audio_sent: Callable[[bytes, int], None] = lambda _packet, _timestamp: None
        """Called with every packet on its way, and with the timestamp it carries (ms)."""

    def post(self, message: ServerMessage, *, turn: int | None = None) -> None:
        """Queue a message, dropped if `turn` has been withdrawn. Never waits, never raises."""
        if self._closed or (turn is not None and turn <= self._withdrawn):
            return
        if len(self._items) >= _MESSAGE_CAPACITY:
            self.close()
            self._on_overflow()
            return
        self._items.append(_Text(encode(message, self._session_id), turn))
        self._changed.unpark_all()

    async def send_audio(self, packet: bytes, *, turn: int) -> None:
        """Queue one Opus packet as soon as there is room; dropped if `turn` is withdrawn."""
        await trio.lowlevel.checkpoint()
        while self._audio_waiting >= _AUDIO_CAPACITY and self._is_wanted(turn):
            await self._changed.park()
        if self._is_wanted(turn):
            self._items.append(_Audio(packet, turn))
            self._audio_waiting += 1
            self._changed.unpark_all()

    def _is_wanted(self, turn: int) -> bool:
        return turn > self._withdrawn and not self._closed

    def unsent(self, turn: int) -> int:
        """How many audio packets of this turn wait here."""
        return sum(isinstance(item, _Audio) and item.turn == turn for item in self._items)

    async def sent(self, turn: int) -> int:
        """Wait until no audio of this turn is left here, or none of it is wanted any more.

        Gives how many packets had to be waited for.
        """
        await trio.lowlevel.checkpoint()
        waiting = self.unsent(turn)
        while self.unsent(turn) and self._is_wanted(turn):
            await self._changed.park()
        return waiting

    def withdraw(self, turn: int) -> int:
        """Drop all that this turn and earlier ones have queued, and all that they still bring.

        Gives how many audio packets were dropped.
        """
        self._withdrawn = max(self._withdrawn, turn)
        waiting = self._audio_waiting
        self._items = deque(
            item for item in self._items if item.turn is None or item.turn > self._withdrawn
        )
        self._audio_waiting = sum(isinstance(item, _Audio) for item in self._items)
        self._changed.unpark_all()
        return waiting - self._audio_waiting

    def close(self) -> None:
        """Take nothing more; the writer gets what is queued and then the end."""
        self._closed = True
        self._changed.unpark_all()

    async def next_payload(self) -> str | bytes:
        """The next WebSocket message for the peer. Raises `trio.EndOfChannel` after `close`."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._closed:
                raise trio.EndOfChannel
            await self._changed.park()
        item = self._items.popleft()
        if isinstance(item, _Text):
            return item.text
        self._audio_waiting -= 1
        self._changed.unpark_all()
        timestamp = self._next_timestamp()
        self.on_audio_sent(item.packet, timestamp)
        return binary.pack(item.packet, self.binary_version, timestamp)

    def _next_timestamp(self) -> int:
        """Milliseconds since the session began, never 0 and always rising (conformance 50)."""
        elapsed = int((trio.current_time() - self._opened_at) * 1000)
        self._last_timestamp = max(elapsed, self._last_timestamp + 1)
        return self._last_timestamp
