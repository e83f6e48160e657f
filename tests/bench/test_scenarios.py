"""The scenarios on fleets that only say what they would have measured."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
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
from xiaozhi_trio.bench.speculation import Speculation
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
    "end to stt": [1.0],
    "end to tts start": [2.0],
    "end to speech": [62.0],
    "barge-in to last frame": [0.0],
    "barge-in to tts stop": [4.0],
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
    "barge-ins": 6,
}


class FakeFleet:
    def __init__(self, counts: dict[str, int] = COUNTS) -> None:
        self.asked: dict[str, dict[str, Any]] = {}
        self._counts = counts

    async def ask(self, request: str, **arguments: Any) -> Measured:
        self.asked[request] = arguments
        await trio.lowlevel.checkpoint()
        return Measured(samples=SAMPLES, counts=self._counts, problems=["no way in"])

    async def handshakes(self, url: str, **arguments: Any) -> Measured:
        return await self.ask("handshakes")

    async def connect(self, url: str, **arguments: Any) -> Measured:
        return await self.ask("connect")


def stage(
    fleet: FakeFleet, pid: int | None, *, script: Script | None = None, **of_target: Any
) -> Stage:
    known: dict[str, Any] = {"ends_with": 9, "engines_ms": 1.0, "barge_ins": [20]} | of_target
    target = Target(name="x", url="ws://127.0.0.1:1/", pid=pid, **known)
    return Stage(
        target=target, fleet=fleet, strangers=FakeFleet(), devices=2, script=script or Script()
    )


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


async def test_what_is_prepared_in_vain_is_told(autojump_clock) -> None:
    counted = iter([Speculation(1, 2, 1, 100.0), Speculation(3, 8, 4, 400.0)])

    async def speculation() -> Speculation:
        await trio.lowlevel.checkpoint()
        return next(counted)

    played = stage(FakeFleet(), None, speculation=speculation)
    figures = {f.name: f.p50 for f in await SCENARIOS["hesitant"].play(played)}
    assert figures["answers prepared"] == 6
    assert figures["prepared in vain"] == 3
    assert figures["share in vain"] == 50
    assert figures["engine time in vain a turn"] == 150


@pytest.mark.parametrize(
    ("name", "speculation"), [("turns", True), ("turns-waiting", False), ("hesitant", True)]
)
async def test_the_script_of_a_scenario_is_played(
    name: str, speculation: bool, autojump_clock
) -> None:
    scenario = SCENARIOS[name]
    script = scenario.stage_direction(Script(chunk_ms=120))
    assert script.chunk_ms == 120
    assert script.listening.speculation is speculation
    fleet = FakeFleet()
    await scenario.play(stage(fleet, None, script=script))
    assert fleet.asked["rehearse"]["said_ms"] == script.said_ms
    assert fleet.asked["turns"]["said_ms"] == script.said_ms
    assert (fleet.asked["turns"]["engines_ms"] is None) is speculation


async def test_an_interruption_wants_to_be_known_in_advance(autojump_clock) -> None:
    with pytest.raises(ScenarioFailed, match="leave --url away"):
        await SCENARIOS["barge-in"].play(stage(FakeFleet(), None, barge_ins=[]))


async def test_no_interruption_at_all_is_told(autojump_clock) -> None:
    fleet = FakeFleet({"connected": 2, "failed": 2})
    with pytest.raises(ScenarioFailed, match="no reply was interrupted: no way in"):
        await SCENARIOS["barge-in"].play(stage(fleet, None))


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
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            server = served.Served(nursery, stack, str(tmp_path))
            started = await server.start(
                script={"recognition_ms": 5, "first_token_ms": 50, "synthesis_ms": 100}
            )
            assert started["engines_ms"] == 155
            assert started["ends_with"] > 25
            assert started["barge_ins"] == []
            assert await server.speculation() == {
                "turns": 0, "begun": 0, "discarded": 0, "wasted_ms": 0
            }  # fmt: skip
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
    with trio.fail_after(30), ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            base_url = await nursery.start(partial(serve, Script(**quick), shutdown=shutdown))
            started = await served.Served(nursery, stack, str(tmp_path)).start(
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
