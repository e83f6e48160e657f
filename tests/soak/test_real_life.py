"""A minute of 200 devices over sockets: all is as it was, and a witness is answered on time."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from soak_devices import ENDINGS, SocketDoor, Tally, Troublemaker
from soak_engines import PLOTS, question
from soak_server import soak_server
from soak_witness import witness_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xiaozhi_trio.bench.line_process import LineProcess

pytestmark = pytest.mark.sockets

TROUBLEMAKERS: Final = 195
WITNESSES: Final = 5
SECONDS: Final = 60.0
WARM_UP_SECONDS: Final = 12.0
RID_SECONDS: Final = 45.0
"""After these nobody is left of those who vanish without a sign, and no thread that has no work."""
LATEST_MS: Final = 300.0
"""A frame that is later than that finds the loudspeaker silent (playout.lead_ms)."""
LONGEST_STEP_SECONDS: Final = 0.25
"""Of the processor, in which nobody else is served."""
FIRST_FRAME_MS: Final = 2000.0
"""From the end of a question to its answer, of which the engines take 600."""
BUSY_SHARE: Final = 0.3
"""Of the time that the server waits for a core, from which on the machine is not its own."""
_SAMPLE_SECONDS: Final = 0.5
_MEMORY: Final = ("blocks", "resident_bytes")


async def make_trouble(door: SocketDoor, seconds: float) -> Tally:
    tally = Tally()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as devices:
            for number in range(1, 1 + TROUBLEMAKERS):
                device = Troublemaker(
                    door=door,
                    number=number,
                    rng=random.Random(number),
                    tally=tally,
                    patience=40,
                    byte_gap=0.1,
                    rest=20,
                    breath=2,
                )
                devices.start_soon(device.live_on)
    return tally


class _Starvation:
    """How long a process stood ready to run and got no core: the machine's doing, not its own."""

    def __init__(self, process_id: int) -> None:
        self._schedule = Path(f"/proc/{process_id}/schedstat")
        self._samples: list[float] = []

    async def watch(self) -> None:
        """Look again and again until cancelled; systems without /proc do not tell."""
        while self._schedule.exists():
            self._samples.append(int(self._schedule.read_text().split()[1]) / 1e6)
            await trio.sleep(_SAMPLE_SECONDS)

    @property
    def worst_ms(self) -> float:
        """The most of it within any three seconds."""
        window = round(3 / _SAMPLE_SECONDS)
        pairs = zip(self._samples, self._samples[window:], strict=False)
        return max((later - earlier for earlier, later in pairs), default=0.0)

    @property
    def share(self) -> float:
        """Of all the time that was watched."""
        waited = self._samples[-1] - self._samples[0] if self._samples else 0.0
        return waited / 1000 / (_SAMPLE_SECONDS * max(len(self._samples), 1))


class _Server:
    """The server process as this test sees it."""

    def __init__(self, process: LineProcess, ports: Mapping[str, int]) -> None:
        self._process = process
        self.url = f"ws://127.0.0.1:{ports['websocket_port']}/xiaozhi/v1/"
        self._health = f"http://127.0.0.1:{ports['http_port']}/health"

    async def sessions(self) -> int:
        async with httpx.AsyncClient() as client:
            sessions: int = (await client.get(self._health)).json()["sessions"]
        return sessions

    async def measure(self) -> Mapping[str, Any]:
        return await self._process.ask("measure")

    async def at_rest(self) -> Mapping[str, Any]:
        """What it holds once it does not change any more."""
        earlier, later = None, await self.measure()
        while earlier is None or _holdings(earlier) != _holdings(later):
            await trio.sleep(0.5)
            earlier, later = later, await self.measure()
        return later

    async def settle(self, at_rest: Mapping[str, Any]) -> Mapping[str, Any]:
        """What it holds once that is what it held before; after `RID_SECONDS` whatever it then is.

        No device says that it has gone for good, and idle threads take their time.
        """
        measured = await self.measure()
        with trio.move_on_after(RID_SECONDS):
            while _holdings(measured) != _holdings(at_rest) or _threads(measured) > 1:
                await trio.sleep(0.5)
                measured = await self.measure()
        return measured


def _holdings(measured: Mapping[str, Any]) -> Mapping[str, Any]:
    census = measured["census"]
    return {kind: census[kind] for kind in ("tasks", "files", "objects")}


def _threads(measured: Mapping[str, Any]) -> int:
    threads: int = measured["census"]["threads"]
    return threads


def _counted(measured: Mapping[str, Any], name: str) -> Counter[str]:
    return Counter(
        {
            labels.get("reason", ""): value
            for counter, labels, value in measured["counts"]
            if counter == name
        }
    )


async def test_a_minute_leaves_nothing_behind_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    for plot in PLOTS:
        question(plot)
    with (tmp_path / "server.log").open("wb") as log:
        async with soak_server(log) as process, witness_process() as witness:
            server = _Server(process, await process.ask("start", state=str(tmp_path)))
            at_rest = await server.at_rest()
            door = SocketDoor(urlsplit(server.url))
            testimony: dict[str, Any] = {}

            async def bear_witness() -> None:
                testimony.update(
                    await witness.ask(
                        "bear_witness",
                        url=server.url,
                        witnesses=WITNESSES,
                        first_device=9000,
                        seconds=SECONDS,
                    )
                )

            try:
                await make_trouble(door, WARM_UP_SECONDS)
                before = await server.settle(at_rest)
                starvation = _Starvation(process.pid)
                async with trio.open_nursery() as watching:
                    watching.start_soon(starvation.watch)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(bear_witness)
                        tally = await make_trouble(door, SECONDS)
                    watching.cancel_scope.cancel()
                after = await server.settle(at_rest)
                assert await server.sessions() == 0
            finally:
                door.close()

    assert set(tally.endings) == set(ENDINGS)
    assert set(tally.plots) == set(PLOTS)
    assert {"silent_peer", "handshake_timeout"} <= set(_counted(after, "handshakes_refused"))
    assert set(_counted(after, "sessions_ended")) == {
        *("peer_gone", "peer_stalled", "replaced", "hello_timeout", "idle"),
        "internal_error",
    }
    assert _counted(after, "connection_failures").total() == after["crashes"] > 0

    assert _holdings(after) == _holdings(at_rest)
    assert _threads(after) == 1
    assert after["busy"] == 0
    grown = {kind: after["census"][kind] - before["census"][kind] for kind in _MEMORY}
    # A session that is kept would be hundreds of blocks for each of the lives.
    assert grown["blocks"] < 8 * tally.lives
    assert grown["resident_bytes"] < 64 << 20

    assert after["longest_step"][0] < LONGEST_STEP_SECONDS, after["longest_step"]
    assert min(testimony["turns"]) >= SECONDS / 12
    # Where others take the cores, times tell nothing of this server.
    if starvation.share < BUSY_SHARE:
        excused = testimony["lag_ms"] + starvation.worst_ms
        assert testimony["latest_ms"] <= LATEST_MS + excused
        assert testimony["slowest_ms"] <= FIRST_FRAME_MS + excused
