"""Well-behaved devices in a process of their own, which tells how late it was itself.

Run as a program; it answers `bear_witness` until its stdin ends.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import trio
from soak_devices import Device, SocketDoor
from soak_engines import FRAME_MS, SAID_PACKETS, Plot

from xiaozhi_trio.bench.line_process import LineProcess, answer_requests
from xiaozhi_trio.bench.schedule import deviations_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

_LAG_SECONDS: Final = 0.005
_PAUSE_SECONDS: Final = 1.5


@attrs.define
class Testimony:
    """What the witnesses of one process saw."""

    turns: list[int]
    """Of each witness."""
    frames: int = 0
    latest_ms: float = 0.0
    """The most that a frame was behind its place in the rhythm of its turn."""
    slowest_ms: float = 0.0
    """The longest from the end of a question to the first frame of its answer."""
    lag_ms: float = 0.0
    """The latest that this process itself woke up."""

    async def watch_lag(self) -> None:
        while True:
            due = trio.current_time() + _LAG_SECONDS
            await trio.sleep_until(due)
            self.lag_ms = max(self.lag_ms, (trio.current_time() - due) * 1000)

    async def converse(self, door: SocketDoor, witness: int, first_device: int, end: float) -> None:
        """One turn after the other; a connection that ends is an error."""
        number = first_device + witness
        device = Device(await door.dial(number), number, door.address)
        await device.upgrade()
        await device.hello()
        while trio.current_time() < end:
            asked = trio.current_time() + SAID_PACKETS * FRAME_MS / 1000
            heard = await device.ask(Plot.WELL, manual=True)
            arrivals = [one.at for one in heard if one.kind == "audio"]
            assert arrivals, heard
            self.turns[witness] += 1
            self.frames += len(arrivals)
            self.slowest_ms = max(self.slowest_ms, (arrivals[0] - asked) * 1000)
            self.latest_ms = max(self.latest_ms, *deviations_ms(arrivals, FRAME_MS))
            await trio.sleep(_PAUSE_SECONDS)


async def bear_witness(
    *, url: str, witnesses: int, first_device: int, seconds: float
) -> Mapping[str, Any]:
    """Talk all the time and tell how it was."""
    door, testimony = SocketDoor(urlsplit(url)), Testimony([0] * witnesses)
    end = trio.current_time() + seconds
    async with trio.open_nursery() as watching:
        watching.start_soon(testimony.watch_lag)
        async with trio.open_nursery() as nursery:
            for witness in range(witnesses):
                nursery.start_soon(testimony.converse, door, witness, first_device, end)
        watching.cancel_scope.cancel()
    door.close()
    return attrs.asdict(testimony)


@asynccontextmanager
async def witness_process() -> AsyncIterator[LineProcess]:
    """Run this program for the block."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    witness = LineProcess(process, "witness")
    try:
        yield witness
    finally:
        await witness.aclose()


if __name__ == "__main__":
    trio.run(answer_requests, {"bear_witness": bear_witness})
