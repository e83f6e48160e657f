"""The scenarios on fleets that only say what they would have measured."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from xiaozhi_trio.bench import scenarios, served
from xiaozhi_trio.bench.fleet import Measured
from xiaozhi_trio.bench.light_device import LightDevice
from xiaozhi_trio.bench.scenarios import SCENARIOS, ScenarioFailed, Stage
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.stand_in import StandIn, serve
from xiaozhi_trio.bench.target import Target, running_server
from xiaozhi_trio.bench.turns import TYPED
from xiaozhi_trio.engines.registry import EngineKind
from xiaozhi_trio.testing import LoudnessDetector

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SAMPLES = {
    "lag": [1.0],
    "elapsed": [2000.0, 1000.0],
    "handshake": [5.0, 7.0],
    "connect": [3.0],
    "own latency": [10.0, 30.0],
    "voice to first frame": [700.0],
    "off schedule": [1.0, 20.0],
    "latest frame": [20.0],
    "silence in speech": [0.0, 80.0],
    "abort to last frame": [2.0],
    "abort to tts stop": [3.0],
    "flood": [1500.0],
}
COUNTS = {
    "handshakes": 100,
    "connected": 2,
    "answered": 2,
    "frames": 1000,
    "frames on time": 99,
    "paced frames": 100,
    "frames after tts stop": 0,
}


class FakeFleet:
    def __init__(self, counts: dict[str, int] = COUNTS) -> None:
        self.asked: list[str] = []
        self._counts = counts

    async def ask(self, request: str, **arguments: Any) -> Measured:
        self.asked.append(request)
        await trio.lowlevel.checkpoint()
        return Measured(samples=SAMPLES, counts=self._counts, problems=["no way in"])

    async def handshakes(self, url: str, **arguments: Any) -> Measured:
        return await self.ask("handshakes")

    async def connect(self, url: str, **arguments: Any) -> Measured:
        return await self.ask("connect")


def stage(fleet: FakeFleet, pid: int | None) -> Stage:
    target = Target(name="x", url="ws://127.0.0.1:1/", pid=pid, ends_with=9, engines_ms=1.0)
    return Stage(target=target, fleet=fleet, strangers=FakeFleet(), devices=2)


@pytest.mark.parametrize("pid", [os.getpid(), None], ids=["ours", "elsewhere"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_each_scenario_gives_figures(name: str, pid: int | None, autojump_clock) -> None:
    figures = await SCENARIOS[name].play(stage(FakeFleet(), pid))
    names = [figure.name for figure in figures]
    assert figures
    assert len(set(names)) >= len(names) - 1
    if name != "frames":
        assert not any(math.isnan(figure.p50) for figure in figures)
    assert any("server CPU" in name or "memory" in name for name in names) == (
        pid is not None and name != "abort"
    )


async def test_the_slowest_process_counts_for_the_rate(autojump_clock) -> None:
    figures = await SCENARIOS["connect"].play(stage(FakeFleet(), None))
    assert next(f for f in figures if f.name == "handshakes a second").p50 == 50


async def test_gaps_and_punctuality_are_counted(autojump_clock) -> None:
    figures = {f.name: f for f in await SCENARIOS["burst"].play(stage(FakeFleet(), None))}
    assert figures["frames within 10 ms"].p50 == 99
    assert figures["turns with a gap"].p50 == 1
    assert figures["own latency to speech"].max == 30


@pytest.mark.parametrize("name", ["connect", "idle", "burst"])
async def test_a_server_that_lets_nobody_in_is_told(name: str, autojump_clock) -> None:
    with pytest.raises(ScenarioFailed, match=r"could connect to ws://127.0.0.1:1/: no way in$"):
        await scenarios.SCENARIOS[name].play(stage(FakeFleet({"failed": 2}), None))


@pytest.mark.sockets
async def test_the_served_server_tells_where_it_is_and_what_it_will_do(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(served, "build_engine", lambda *_: LoudnessDetector())
    monkeypatch.setattr(served, "configure_logging", lambda *_: None)
    monkeypatch.setattr(served, "calm_collector", lambda: None)
    async with trio.open_nursery() as nursery:
        started = await served.Served(nursery, str(tmp_path)).start(
            script={"recognition_ms": 5, "first_token_ms": 50, "synthesis_ms": 100}
        )
        assert started["engines_ms"] == 155
        assert started["ends_with"] > 25
        assert running_server(started["url"]).pid == os.getpid()
        nursery.cancel_scope.cancel()


@pytest.mark.sockets
async def test_the_served_server_answers_with_what_its_stand_in_says(monkeypatch, tmp_path) -> None:
    build = served.build_engine
    monkeypatch.setattr(
        served,
        "build_engine",
        lambda kind, *more: LoudnessDetector() if kind is EngineKind.VAD else build(kind, *more),
    )
    monkeypatch.setattr(served, "configure_logging", lambda *_: None)
    monkeypatch.setattr(served, "calm_collector", lambda: None)
    heard: list[bytes] = []
    transcribe = StandIn.transcribe

    async def count(endpoints: StandIn, request: Request) -> Response:
        heard.append(await request.body())
        return await transcribe(endpoints, request)

    monkeypatch.setattr(StandIn, "transcribe", count)
    quick = {"recognition_ms": 0, "first_token_ms": 0, "synthesis_ms": 0, "sentence_ms": 300}
    shutdown = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            base_url = await nursery.start(partial(serve, Script(**quick), shutdown=shutdown))
            started = await served.Served(nursery, str(tmp_path)).start(
                script=quick, stand_in=base_url
            )
            assert len(heard) == 1, "what only the first turn pays for is not measured"
            device = await LightDevice.dial(urlsplit(started["url"]), "02:00:00:00:00:01")
            try:
                await device.hello()
                await device.send(TYPED)
                heard = await device.wait_for("tts sentence_start")
                assert heard.body is not None
                assert "little server" in heard.body["text"]
                await device.wait_for("audio")
            finally:
                device.close()
            nursery.cancel_scope.cancel()
