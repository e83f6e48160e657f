"""Devices that join, talk and vanish in every way in which a device can, over any stream.

The same lives are lived over memory streams on a virtual clock and over sockets.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import random
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import attrs
import orjson
import trio
from soak_engines import CRASHES, FRAME_MS, PLOTS, SAID_PACKETS, UNHEARD, Plot, question

from xiaozhi_trio.bench.client_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    frame,
    upgrade_request,
)
from xiaozhi_trio.bench.light_device import HELLO, text_frame
from xiaozhi_trio.bench.load import device_id
from xiaozhi_trio.bench.turns import ABORT, LISTEN_AUTO, LISTEN_MANUAL, LISTEN_STOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from urllib.parse import SplitResult

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
MEMORY: Final = urlsplit("ws://soak.example:8000/xiaozhi/v1/")
_GOODBYE: Final = frame(b"\x03\xe8", CLOSE)
_RECEIVE_BYTES: Final = 65_536


class Wire(Protocol):
    """The device's end of a connection."""

    @property
    def stream(self) -> trio.abc.HalfCloseableStream:
        """What to talk over."""

    def reset(self) -> None:
        """Vanish so that the server finds the connection broken."""


class Door(Protocol):
    """The way to the server."""

    @property
    def address(self) -> SplitResult:
        """What the devices say that they dialled."""

    async def dial(self, device: int, *, narrow: bool = False) -> Wire:
        """A connection; `narrow` takes next to nothing that is not read at once.

        Whatever becomes of it, it stays as it is until the door is closed.
        """


class SocketWire:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    def reset(self) -> None:
        # Lingering for no time at all is how to send RST.
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


class SocketDoor:
    """Sockets to the server, each of which stays open until its device or the test is over."""

    def __init__(self, address: SplitResult) -> None:
        self.address = address
        self._wires: list[SocketWire] = []

    async def dial(self, device: int, *, narrow: bool = False) -> SocketWire:
        with contextlib.ExitStack() as on_failure:
            endpoint = on_failure.enter_context(trio.socket.socket())
            if narrow:
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            await endpoint.connect((self.address.hostname, self.address.port))
            on_failure.pop_all()
        wire = SocketWire(trio.SocketStream(endpoint))
        self._wires.append(wire)
        return wire

    def close(self) -> None:
        for wire in self._wires:
            wire.stream.socket.close()


class Way(enum.Enum):
    """How a device leaves."""

    GOODBYE = enum.auto()
    """With a close frame."""
    FINISH = enum.auto()
    """FIN, without a close frame."""
    RESET = enum.auto()
    """RST."""
    HALF_OPEN = enum.auto()
    """Nothing comes from it any more, and nothing tells so."""
    STALL = enum.auto()
    """It reads nothing any more and goes on asking."""
    SLOW = enum.auto()
    """It sends byte by byte."""


class Stage(enum.Enum):
    """How far it has come by then."""

    AT_THE_DOOR = enum.auto()
    BEFORE_HELLO = enum.auto()
    IDLE = enum.auto()
    TALKING = enum.auto()
    ANSWERED = enum.auto()


ENDINGS: Final = tuple(itertools.product(Way, Stage))


@attrs.frozen
class Heard:
    """Something the server sent."""

    at: float
    """Trio time."""
    kind: str
    """`hello`, `tts start`, … and `audio`."""


class Device:
    """One connection of a device. One task may send, one may receive."""

    def __init__(self, wire: Wire, number: int, address: SplitResult) -> None:
        self.wire = wire
        self._request = upgrade_request(address, device_id(number))
        self._reader = FrameReader()
        self._waiting: list[Heard] = []

    async def upgrade(self) -> None:
        await self.send(self._request)
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self.wire.stream.receive_some(_RECEIVE_BYTES)
            if not data:
                raise trio.EndOfChannel
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self._waiting += self._heard(rest)

    async def hello(self) -> None:
        await self.send(HELLO)
        await self.hear("hello")

    async def send(self, encoded: bytes) -> None:
        await self.wire.stream.send_all(encoded)

    async def receive(self) -> Heard:
        """The next message. Raises what is in `GONE` at the end."""
        while not self._waiting:
            data = await self.wire.stream.receive_some(_RECEIVE_BYTES)
            if not data:
                raise trio.EndOfChannel
            self._waiting += self._heard(bytes(data))
        return self._waiting.pop(0)

    def _heard(self, data: bytes) -> Iterator[Heard]:
        now = trio.current_time()
        for opcode, payload in self._reader.feed(data):
            if opcode == BINARY:
                yield Heard(now, "audio")
            elif opcode == TEXT:
                body = orjson.loads(payload)
                yield Heard(now, " ".join([body["type"], *filter(None, [body.get("state")])]))
            elif opcode == CLOSE:
                yield Heard(now, "close")
            else:
                assert opcode in (PING, PONG)

    async def hear(self, kind: str) -> Sequence[Heard]:
        """All that comes up to and with the next message of this kind."""
        heard = [await self.receive()]
        while heard[-1].kind != kind:
            heard.append(await self.receive())
        return heard

    async def hear_out(self) -> Sequence[Heard]:
        """All that comes up to the end."""
        heard = []
        while True:
            try:
                heard.append(await self.receive())
            except GONE:
                return heard

    async def talk(self, plot: Plot, *, manual: bool = False, packets: int | None = None) -> None:
        """Say the question in real time; all of it, or its first packets."""
        await self.send(LISTEN_MANUAL if manual else LISTEN_AUTO)
        due = trio.current_time()
        for packet in question(plot)[: SAID_PACKETS if manual else packets]:
            await self.send(packet)
            due += FRAME_MS / 1000
            await trio.sleep_until(due)
        if manual:
            await self.send(LISTEN_STOP)

    async def ask(self, plot: Plot, *, manual: bool = False) -> Sequence[Heard]:
        """Say the question and hear the answer out."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: self.talk(plot, manual=manual))
            return await self.hear("tts stop")

    async def type(self, plot: Plot) -> None:
        await self.send(
            text_frame({"type": "listen", "state": "detect", "text": f"{plot.value}, say."})
        )


@attrs.define
class Tally:
    """What all devices together have been through."""

    endings: Counter[tuple[Way, Stage]] = attrs.field(factory=Counter)
    plots: Counter[Plot] = attrs.field(factory=Counter)
    """Questions that came to the end that the plot has for them."""
    aborted: int = 0
    lives: int = 0


@attrs.define
class Troublemaker:
    """A device that lives one short life after the other."""

    door: Door
    number: int
    rng: random.Random
    tally: Tally
    patience: float
    """Seconds within which every question has its end."""
    byte_gap: float
    """Seconds between two bytes of a slow sender."""
    rest: float
    """Seconds at most between two lives."""
    breath: float
    """Seconds at most before each question."""

    async def live_on(self) -> None:
        """Live until cancelled."""
        endings = itertools.cycle(self.rng.sample(ENDINGS, len(ENDINGS)))
        plots = itertools.cycle(self.rng.sample(PLOTS, len(PLOTS)))
        for way, stage in endings:
            await trio.sleep(self.rng.uniform(0, self.rest))
            wire = await self.door.dial(self.number, narrow=way is Way.STALL)
            device = Device(wire, self.number, self.door.address)
            self.tally.lives += 1
            try:
                await self._live(device, stage, plots)
                await self._leave(device, way, stage)
            except* GONE:
                # The server has let it go first.
                wire.reset()
            self.tally.endings[way, stage] += 1

    async def _live(self, device: Device, stage: Stage, plots: Iterator[Plot]) -> None:
        if stage is Stage.AT_THE_DOOR:
            return
        await device.upgrade()
        if stage is Stage.BEFORE_HELLO:
            return
        await device.hello()
        for plot in itertools.islice(plots, self.rng.randint(0, 2)):
            await trio.sleep(self.rng.uniform(0, self.breath))
            with trio.fail_after(self.patience):
                await self._converse(device, plot)
            self.tally.plots[plot] += 1
            if plot is Plot.VAD_HANGS:
                # It would not be heard again.
                return
        match stage:
            case Stage.TALKING:
                await device.talk(self.rng.choice(PLOTS), packets=5)
            case Stage.ANSWERED:
                await device.type(Plot.LLM_RAVES)
                with trio.fail_after(self.patience):
                    await device.hear("audio")

    async def _converse(self, device: Device, plot: Plot) -> None:
        if plot in UNHEARD:
            await device.talk(plot)
        elif plot in CRASHES:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._talk_to_nobody, device, plot)
                heard = await device.hear_out()
                nursery.cancel_scope.cancel()
            assert heard[-1].kind == "close", heard
            self.tally.plots[plot] += 1
            raise trio.EndOfChannel
        elif plot in (Plot.LLM_RAVES, Plot.TTS_RAVES) or self.rng.random() < 0.2:
            await self._abort(device, plot)
        else:
            await device.ask(plot, manual=self.rng.random() < 0.3)

    async def _talk_to_nobody(self, device: Device, plot: Plot) -> None:
        try:
            await device.talk(plot)
        except GONE:
            return

    async def _abort(self, device: Device, plot: Plot) -> None:
        await device.type(plot)
        await device.hear("tts start")
        with trio.move_on_after(self.rng.uniform(0, 1)):
            await device.hear("tts stop")
            return
        await device.send(ABORT)
        await device.hear("tts stop")
        self.tally.aborted += 1

    async def _leave(self, device: Device, way: Way, stage: Stage) -> None:
        match way:
            case Way.GOODBYE:
                if stage is not Stage.AT_THE_DOOR:
                    await device.send(_GOODBYE)
                await self._finish(device)
            case Way.FINISH:
                await self._finish(device)
            case Way.RESET:
                device.wire.reset()
            case Way.HALF_OPEN:
                return
            case Way.STALL:
                if stage not in (Stage.AT_THE_DOOR, Stage.BEFORE_HELLO):
                    await device.type(Plot.LLM_RAVES)
            case Way.SLOW:
                await self._dribble(device, stage)

    async def _finish(self, device: Device) -> None:
        await device.wire.stream.send_eof()
        with trio.fail_after(self.patience):
            await device.hear_out()
        await device.wire.stream.aclose()

    async def _dribble(self, device: Device, stage: Stage) -> None:
        match stage:
            case Stage.AT_THE_DOOR:
                text = device._request
            case Stage.BEFORE_HELLO:
                text = HELLO
            case Stage.IDLE:
                text = LISTEN_AUTO
            case _:
                text = b"".join(question(Plot.WELL))
        for byte in text:
            await device.send(bytes([byte]))
            await trio.sleep(self.byte_gap)
