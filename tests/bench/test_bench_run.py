"""A run with its processes, on a stand-in for the server that is measured."""

from __future__ import annotations

import sys
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from xiaozhi_trio.bench import run as run_module
from xiaozhi_trio.bench import target as target_module
from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.fleet import open_fleet
from xiaozhi_trio.bench.line_process import ChildFailed, line_process
from xiaozhi_trio.bench.run import Plan, Result, run
from xiaozhi_trio.bench.scenarios import SCENARIOS, Scenario, ScenarioFailed, Stage
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.target import Engines, Target, own_server
from xiaozhi_trio.cli import bench as bench_command
from xiaozhi_trio.cli.command import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@pytest.mark.sockets
async def test_a_fleet_shares_the_work_and_adds_up() -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{bound.getsockname()[1]}/"
        async with open_fleet(2) as fleet:
            measured = await fleet.connect(url, devices=5, parallel=2)
            assert measured.count("failed") == 5
            assert len(measured.of("elapsed")) == 2
            rest = await fleet.ask("rest", seconds=0.05)
            assert rest.of("lag")
            assert rest.of("no such figure") == []


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("xiaozhi_trio.bench.figures", "the odd process (has )?ended"),
        ("this", "answered b'The Zen"),
    ],
)
async def test_a_child_that_cannot_answer_is_told(module: str, told: str) -> None:
    async with line_process(module, name="odd") as child:
        with pytest.raises(ChildFailed, match=told):
            await child.ask("anything")


def plan(*scenarios: Scenario, **more: object) -> Plan:
    return Plan(scenarios=scenarios, url="ws://127.0.0.1:1/", processes=1, **more)


async def _five(stage: Stage) -> Sequence[Figure]:
    await trio.lowlevel.checkpoint()
    return [Figure.of(stage.target.name, "ms", [5, stage.devices])]


async def _fails(stage: Stage) -> Sequence[Figure]:
    await trio.lowlevel.checkpoint()
    raise ScenarioFailed(f"{stage.target.url} is asleep")


FIVE = Scenario(name="five", what="", devices=7, play=_five)
FAILS = Scenario(name="fails", what="", devices=1, play=_fails)


async def test_targets_take_turns_in_every_round() -> None:
    told: list[Result] = []
    results = await run(plan(FIVE, against="ws://127.0.0.1:2/", rounds=2), told.append)
    assert results == told
    assert [(result.round, result.target) for result in results] == [
        (1, "127.0.0.1:1"),
        (1, "127.0.0.1:2"),
        (2, "127.0.0.1:1"),
        (2, "127.0.0.1:2"),
    ]
    assert results[0].figures[0].max == 7


async def test_a_failed_scenario_leaves_the_others() -> None:
    results = await run(plan(FAILS, FIVE, devices=3), lambda _: None)
    assert [result.failure for result in results] == ["ws://127.0.0.1:1/ is asleep", None]
    assert results[1].figures[0].max == 5


async def test_a_server_that_does_not_start_shows_its_log(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (result,) = await run(Plan(scenarios=[FIVE]), lambda _: None)
    assert "server process" in (result.failure or "")


async def test_targets_are_asked_in_the_same_way_where_they_are_compared(monkeypatch) -> None:
    known = Target(name="x", url="ws://127.0.0.1:1/", pid=None, ends_with=9, engines_ms=700)
    monkeypatch.setattr(run_module, "running_server", lambda _: known)
    seen: list[int | None] = []

    async def look(stage: Stage) -> Sequence[Figure]:
        await trio.lowlevel.checkpoint()
        seen.append(stage.target.ends_with)
        return []

    looking = Scenario(name="look", what="", devices=1, play=look)
    await run(plan(looking), lambda _: None)
    await run(plan(looking, against="ws://127.0.0.1:2/"), lambda _: None)
    assert seen == [9, None, None]


@pytest.mark.parametrize(
    ("engines", "children"),
    [
        (Engines.SCRIPTED, ["xiaozhi_trio.bench.served"]),
        (Engines.OPENAI, ["xiaozhi_trio.bench.stand_in", "xiaozhi_trio.bench.served"]),
    ],
)
async def test_a_server_of_our_own_gets_the_engines_asked_for(
    engines: Engines, children: list[str], monkeypatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}

    class Child:
        pid = 7

        def __init__(self, module: str) -> None:
            self._module = module

        async def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            asked[self._module] = arguments
            if self._module.endswith("stand_in"):
                return {"base_url": "http://127.0.0.1:9/v1"}
            return {"url": "ws://127.0.0.1:8/", "ends_with": 5, "engines_ms": 1}

    @asynccontextmanager
    async def child(module: str, **_: Any) -> AsyncIterator[Child]:
        yield Child(module)

    monkeypatch.setattr(target_module, "line_process", child)
    with tempfile.TemporaryFile() as log:
        async with own_server(Script(sentences=2), engines, log) as target:
            assert target.url == "ws://127.0.0.1:8/"
    assert list(asked) == children
    assert {arguments["script"]["sentences"] for arguments in asked.values()} == {2}
    stand_in = asked["xiaozhi_trio.bench.served"]["stand_in"]
    assert stand_in == ("http://127.0.0.1:9/v1" if engines is Engines.OPENAI else None)


def test_addresses_are_checked_before_anything_is_measured() -> None:
    for option in ("--url", "--against"):
        for url in ("wss://xiaozhi.example/", "http://127.0.0.1:8000/", "ws://x:99999/", "ws:///"):
            outcome = CliRunner().invoke(program, ["bench", "connect", option, url])
            assert outcome.exit_code == 2
            assert "no address of a WebSocket without TLS" in outcome.output


def test_the_stand_in_plays_no_scenarios() -> None:
    outcome = CliRunner().invoke(program, ["bench", "--stand-in", "0", "burst"])
    assert outcome.exit_code == 2
    assert "plays no scenarios" in outcome.output


def test_the_command_knows_all_scenarios() -> None:
    assert {engines.value for engines in Engines} == set(bench_command._ENGINES)
    assert set(bench_command._SCENARIOS) == set(SCENARIOS)


def test_the_command_writes_figures(monkeypatch, tmp_path) -> None:
    file = tmp_path / "figures.json"

    async def play(plan: Plan, on_result) -> list[Result]:
        await trio.lowlevel.checkpoint()
        assert [scenario.name for scenario in plan.scenarios] == ["connect"]
        assert plan.devices == 4
        assert plan.engines is Engines.OPENAI
        result = Result(
            target="x",
            scenario="connect",
            devices=4,
            round=1,
            figures=[Figure.of("handshakes a second", "/s", [600])],
        )
        on_result(result)
        return [result]

    monkeypatch.setattr(run_module, "run", play)
    outcome = CliRunner().invoke(
        program,
        ["bench", "connect", "--devices", "4", "--engines", "openai", "--json", str(file)],
    )
    assert outcome.exit_code == 0, outcome.output
    assert "handshakes a second" in outcome.output
    assert b'"handshakes a second"' in file.read_bytes()
    nowhere = tmp_path / "no" / "folder.json"
    outcome = CliRunner().invoke(
        program,
        ["bench", "connect", "--devices", "4", "--engines", "openai", "--json", str(nowhere)],
    )
    assert outcome.exit_code == 1
    assert "cannot be written" in outcome.output


def test_no_figures_at_all_is_a_failure(monkeypatch) -> None:
    async def play(plan: Plan, on_result) -> list[Result]:
        await trio.lowlevel.checkpoint()
        result = Result(
            target="x", scenario="idle", devices=1, round=1, figures=[], failure="asleep"
        )
        on_result(result)
        return [result]

    monkeypatch.setattr(run_module, "run", play)
    outcome = CliRunner().invoke(program, ["bench", "idle"])
    assert outcome.exit_code == 1
    assert "asleep" in outcome.output
