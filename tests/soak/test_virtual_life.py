"""Ten minutes of 200 devices in virtual time: all is as it was, and nobody waited for another."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trio.testing
from loguru import logger
from soak_census import census
from soak_devices import ENDINGS, MEMORY, Device, Tally, Troublemaker
from soak_engines import PLOTS, Plot, Troupe

from xiaozhi_trio.config.settings import (
    AudioSettings,
    ConversationSettings,
    ListeningSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
)
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.session.session import Session, SessionServices
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper
from xiaozhi_trio.testing import encode_inline
from xiaozhi_trio.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from trio.testing import MockClock

WITNESSES: Final = 40
TROUBLEMAKERS: Final = 160
MINUTES: Final = 10
RID_SECONDS: Final = 150.0
"""After these nobody is left of those who vanish without a sign: idle_seconds and the rest."""
SETTINGS: Final = Settings(
    audio=AudioSettings(complexity=0),
    listening=ListeningSettings(end_silence_ms=300),
    conversation=ConversationSettings(max_reply_characters=300),
    # What is remembered on purpose is soon full, so that the rest can be told from it.
    telemetry=TelemetrySettings(turns_per_device=2, devices=10),
)


class _Breakable(trio.abc.HalfCloseableStream):
    """A stream that can be found broken at any moment."""

    def __init__(self, beneath: trio.StapledStream[Any, Any]) -> None:
        self._beneath = beneath
        self._under_way: set[trio.CancelScope] = set()
        self._is_broken = False

    def break_off(self) -> None:
        self._is_broken = True
        for scope in self._under_way:
            scope.cancel()

    async def _unless_broken(self, call: Callable[..., Awaitable[Any]], *args: object) -> Any:
        if not self._is_broken:
            with trio.CancelScope() as scope:
                self._under_way.add(scope)
                try:
                    return await call(*args)
                finally:
                    self._under_way.discard(scope)
        raise trio.BrokenResourceError("connection reset by peer")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._unless_broken(self._beneath.receive_some, max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._unless_broken(self._beneath.send_all, data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._unless_broken(self._beneath.wait_send_all_might_not_block)

    async def send_eof(self) -> None:
        await self._beneath.send_eof()

    async def aclose(self) -> None:
        await self._beneath.aclose()


class _MemoryWire:
    """Holds not one byte: what is not read is not sent."""

    def __init__(self) -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        self.stream = _Breakable(ours)
        self.gateways_end = _Breakable(theirs)

    def reset(self) -> None:
        self.stream.break_off()
        self.gateways_end.break_off()


class House:
    """A gateway with real sessions, and its door."""

    address = MEMORY

    connections: trio.Nursery

    def __init__(self) -> None:
        self.troupe = Troupe()
        self.roster = Roster()
        self.counters = Counters()
        services = SessionServices(
            settings=SETTINGS,
            engines=self.troupe.engines,
            run_encoding=encode_inline,
            vision=lambda _: ("http://192.168.1.2:8003/mcp/vision/explain", "token"),
            traces=TraceKeeper(SETTINGS.telemetry),
        )
        self.gateway = Gateway(
            server=ServerSettings(),
            limits=SETTINGS.limits,
            authenticator=Authenticator(None),
            sessions=lambda handshake, session_id: Session(handshake, session_id, services),
            roster=self.roster,
            counters=self.counters,
            health=dict,
        )

    async def dial(self, device: int, *, narrow: bool = False) -> _MemoryWire:
        await trio.lowlevel.checkpoint()
        wire = _MemoryWire()
        address = f"10.0.{device // 250}.{device % 250 + 1}"
        self.connections.start_soon(
            self.gateway.attend, wire.gateways_end, Endpoint.of(address, 40_000)
        )
        return wire

    def counted(self, name: str) -> Counter[str]:
        return Counter(
            {
                dict(count.labels).get("reason", ""): count.value
                for count in self.counters.snapshot()
                if count.name == name
            }
        )


@pytest.fixture
def silent_log() -> Iterator[None]:
    # Tens of thousands of lines that nobody reads.
    logger.disable("xiaozhi_trio")
    yield
    logger.enable("xiaozhi_trio")


@asynccontextmanager
async def joined(house: House, number: int) -> AsyncIterator[Device]:
    device = Device(await house.dial(number), number, house.address)
    await device.upgrade()
    await device.hello()
    yield device
    device.wire.reset()


async def timed_turn(device: Device) -> Sequence[tuple[float, str]]:
    """What comes in answer to a question and when, since its first packet; to the microsecond."""
    began = trio.current_time()
    heard = await device.ask(Plot.WELL)
    return [(round(one.at - began, 6), one.kind) for one in heard]


async def bear_witness(
    house: House, number: int, expected: Sequence[tuple[float, str]], turns: Counter[int]
) -> None:
    """Talk now and then, and find each turn as it would be without anybody else."""
    rng = random.Random(number)
    await trio.sleep(rng.uniform(0, 60))
    async with joined(house, number) as device:
        while True:
            assert await timed_turn(device) == expected
            turns[number] += 1
            await trio.sleep(rng.uniform(20, 95))


async def soak(house: House, seconds: float) -> tuple[Tally, Counter[int]]:
    """All devices for so long, and then until the server is rid of them."""
    tally, turns = Tally(), Counter[int]()
    with trio.fail_after(seconds + RID_SECONDS):
        async with trio.open_nursery() as house.connections:
            async with joined(house, 0) as alone:
                expected = await timed_turn(alone)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as devices:
                    for number in range(1, 1 + WITNESSES):
                        devices.start_soon(bear_witness, house, number, expected, turns)
                    for number in range(1 + WITNESSES, 1 + WITNESSES + TROUBLEMAKERS):
                        devices.start_soon(troublemaker(house, number, tally).live_on)
    return tally, turns


def troublemaker(house: House, number: int, tally: Tally) -> Troublemaker:
    return Troublemaker(
        door=house,
        number=number,
        rng=random.Random(number),
        tally=tally,
        patience=200,
        byte_gap=0.5,
        rest=90,
        breath=90,
    )


@pytest.mark.usefixtures("silent_log")
async def test_ten_minutes_leave_nothing_behind_and_nobody_waits_for_another(
    autojump_clock: MockClock,
) -> None:
    house = House()
    await soak(house, 30)
    before = census()

    tally, turns = await soak(house, MINUTES * 60)

    after = census()
    assert set(tally.endings) == set(ENDINGS)
    assert set(tally.plots) == set(PLOTS)
    assert tally.aborted
    assert len(turns) == WITNESSES
    assert min(turns.values()) >= 5
    assert {"silent_peer", "handshake_timeout"} <= set(house.counted("handshakes_refused"))
    assert set(house.counted("sessions_ended")) == {
        *("peer_gone", "peer_stalled", "replaced", "hello_timeout", "idle"),
        "internal_error",
    }
    assert house.counted("connection_failures").total() == house.troupe.crashes > 0

    assert len(house.roster) == 0
    assert house.troupe.busy == 0
    assert (after.tasks, after.threads, after.files) == (before.tasks, before.threads, before.files)
    assert after.objects == before.objects
    # A session that is kept would be hundreds for each of the lives.
    assert after.blocks - before.blocks < 4 * tally.lives
    # The heap grows to the most that was in use at once, not with the lives.
    assert after.resident_bytes - before.resident_bytes < 64 << 20
