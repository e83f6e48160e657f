"""The device's side of a recording, played again.

Audio goes out at the times of the recording. A message also waits until the server
has said as often as it had before that message what devices wait for: its hello, the
start and the end of its speech, its questions over MCP. So a server that takes
longer is not interrupted by a microphone that opens as early as it once did.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import orjson
import trio

from xiaozhi_trio.cli.recorded_conversation import (
    AUDIO,
    HUNG_UP,
    Happening,
    RecordedConversation,
    Step,
    happening_of,
    is_awaited,
    packet_ms,
)
from xiaozhi_trio.cli.replay_differences import server_runs
from xiaozhi_trio.session.negotiation import framing
from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.messages import Hello, decode
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_NOTES: Final = 20


class ReplayLink(Protocol):
    """The device's end of a connection."""

    @property
    def close_code(self) -> int | None:
        """How it ended."""

    async def send(self, payload: str | bytes) -> None:
        """Send one message. Raises `trio.BrokenResourceError` where the server is gone."""

    async def receive(self) -> str | bytes:
        """The next message. Raises `trio.EndOfChannel` at the end."""


class ReplayedDevice:
    """Plays a recording once."""

    def __init__(
        self,
        recorded: RecordedConversation,
        link: ReplayLink,
        *,
        speed: float = 1.0,
        patience: float = 20.0,
    ) -> None:
        """`speed` is how many times faster the device acts; `patience`, in s, bounds each wait."""
        self._recorded = recorded
        self._link = link
        self._speed = speed
        self._patience = patience
        self._began = trio.current_time()
        self._news = trio.lowlevel.ParkingLot()
        self._said: Counter[str] = Counter()
        self._timestamps: list[int] = []
        self._binary_version = recorded.heading.protocol_version
        self._gone = False
        self._wanted = len(server_runs(recorded.happenings))
        self.happenings: list[Happening] = []
        """What passed this time."""
        self.notes: list[str] = []
        """Where the device had to give up waiting."""

    async def play(self) -> None:
        """Play it to its end and see what the server makes of it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            due = await self._take_steps()
            await self._see_it_out(due)
            nursery.cancel_scope.cancel()

    async def _take_steps(self) -> float:
        due, previous = self._began, 0.0
        for number, step in enumerate(self._recorded.steps):
            due += max(0.0, step.at - previous) / self._speed
            previous = step.at
            await trio.sleep_until(due)
            due = max(due, await self._wait_for(step))
            if self._gone or not await self._send(step):
                left = len(self._recorded.steps) - number
                self._note(f"the server hung up before the last {left} steps of the device")
                break
        # The server speaks no faster for a device that acts faster.
        return due + max(0.0, self._recorded.ends_at - previous)

    async def _wait_for(self, step: Step) -> float:
        wanted = Counter(step.after)
        with trio.move_on_after(self._patience) as waiting:
            await self._until(lambda: all(self._said[kind] >= wanted[kind] for kind in wanted))
        if waiting.cancelled_caught:
            missing = ", ".join((wanted - self._said).keys())
            self._note(f"went on at {step.at:g} s of the recording without: {missing}")
        return trio.current_time()

    async def _send(self, step: Step) -> bool:
        now = trio.current_time() - self._began
        payload = step.payload
        if isinstance(payload, dict):
            self.happenings.append(happening_of(now, "device", payload))
            payload = orjson.dumps(payload).decode()
            self._learn_framing(payload)
        elif isinstance(payload, binary.AudioFrame):
            self.happenings.append(Happening(now, "device", AUDIO, ms=packet_ms(payload.packet)))
            timestamp = self._timestamp_now(payload.timestamp)
            payload = binary.pack(payload.packet, self._binary_version, timestamp)
        try:
            await self._link.send(payload)
        except trio.BrokenResourceError:
            return False
        return True

    def _learn_framing(self, text: str) -> None:
        try:
            message = decode(text)
        except ProtocolViolation:
            # A device may say anything; the server's answer is what is looked at.
            return
        if isinstance(message, Hello) and not self._said["hello"]:
            self._binary_version = framing(message, self._recorded.heading.protocol_version)

    def _timestamp_now(self, timestamp: int) -> int:
        """That of the packet which takes the place of the one that was played at `timestamp`."""
        if timestamp in self._recorded.timestamps:
            place = self._recorded.timestamps.index(timestamp)
            if place < len(self._timestamps):
                return self._timestamps[place]
        return 0

    async def _see_it_out(self, due: float) -> None:
        with trio.CancelScope(deadline=due):
            await self._until(lambda: self._gone)
        with trio.move_on_after(self._patience):
            await self._until(lambda: len(server_runs(self.happenings)) >= self._wanted)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._gone:
            await self._news.park()

    def _note(self, note: str) -> None:
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(note)

    async def _listen(self) -> None:
        try:
            while True:
                payload = await self._link.receive()
                self._hear(trio.current_time() - self._began, payload)
                self._news.unpark_all()
        except trio.EndOfChannel:
            self._gone = True
            code = str(self._link.close_code)
            now = trio.current_time() - self._began
            self.happenings.append(Happening(now, "server", HUNG_UP, code))
            self._news.unpark_all()

    def _hear(self, now: float, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            try:
                frame = binary.unpack(payload, self._binary_version)
            except ProtocolViolation:
                frame = binary.JsonFrame(payload)
            if isinstance(frame, binary.AudioFrame):
                self._timestamps.append(frame.timestamp)
                ms = packet_ms(frame.packet)
                self.happenings.append(Happening(now, "server", AUDIO, ms=ms))
            else:
                self.happenings.append(Happening(now, "server", "binary"))
            return
        try:
            body = orjson.loads(payload)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            self.happenings.append(Happening(now, "server", "text"))
            return
        happening = happening_of(now, "server", body)
        self.happenings.append(happening)
        if is_awaited(happening.kind):
            self._said[happening.kind] += 1
