"""A run with its processes, on a stand-in for the server that is measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner

from xiaozhi_trio.bench import run as run_module
from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.fleet import open_fleet
from xiaozhi_trio.bench.line_process import ChildFailed, line_process
from xiaozhi_trio.bench.run import Plan, Result, run
from xiaozhi_trio.bench.scenarios import SCENARIOS, Scenario, ScenarioFailed, Stage
from xiaozhi_trio.cli import bench as bench_command
from xiaozhi_trio.cli.command import program

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def test_the_command_knows_all_scenarios() -> None:
    assert set(bench_command._SCENARIOS) == set(SCENARIOS)


def test_the_command_writes_figures(monkeypatch, tmp_path) -> None:
    file = tmp_path / "figures.json"

    async def play(plan: Plan, on_result) -> list[Result]:
        await trio.lowlevel.checkpoint()
        assert [scenario.name for scenario in plan.scenarios] == ["connect"]
        assert plan.devices == 4
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
        program, ["bench", "connect", "--devices", "4", "--json", str(file)]
    )
    assert outcome.exit_code == 0, outcome.output
    assert "handshakes a second" in outcome.output
    assert b'"handshakes a second"' in file.read_bytes()
    nowhere = tmp_path / "no" / "folder.json"
    outcome = CliRunner().invoke(
        program, ["bench", "connect", "--devices", "4", "--json", str(nowhere)]
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
