"""A run of the bench: every scenario against every target, in turns, round by round."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import IO, TYPE_CHECKING, Final

import attrs
import trio

from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.fleet import open_fleet
from xiaozhi_trio.bench.line_process import ChildFailed
from xiaozhi_trio.bench.procfs import NoSuchProcess
from xiaozhi_trio.bench.scenarios import Scenario, ScenarioFailed, Stage
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.target import Engines, Target, own_server, running_server

if TYPE_CHECKING:
    from collections.abc import Callable

_STRANGERS_BEGIN: Final = 1_000_000
"""Number of the first device of the strangers, beyond those of the fleet."""
_LOG_SHOWN: Final = 2000
"""Bytes of the end of a failed server's log."""


@attrs.frozen(kw_only=True)
class Plan:
    """What to measure."""

    scenarios: Sequence[Scenario]
    url: str | None = None
    """A running server; None starts one."""
    against: str | None = None
    """Another server to compare with."""
    devices: int | None = None
    """In every scenario; None takes each one's own number."""
    rounds: int = 1
    processes: int = 2
    script: Script = attrs.field(factory=Script)
    engines: Engines = Engines.SCRIPTED
    """Of a server started here."""


@attrs.frozen(kw_only=True)
class Result:
    """The figures of one scenario against one target in one round."""

    target: str
    scenario: str
    devices: int
    round: int
    """Counted from 1."""
    figures: Sequence[Figure]
    failure: str | None = None
    """Why there are none."""


async def run(plan: Plan, on_result: Callable[[Result], None]) -> list[Result]:
    """Play everything and hand each result over as it comes."""
    allow_many_files()
    results = []
    for number in range(1, plan.rounds + 1):
        for scenario in plan.scenarios:
            for url in (plan.url, plan.against) if plan.against else (plan.url,):
                # A server of its own for each scenario: none inherits the memory of another.
                result = await _play(plan, scenario, url, number)
                results.append(result)
                on_result(result)
    return results


async def _play(plan: Plan, scenario: Scenario, url: str | None, number: int) -> Result:
    devices = plan.devices or scenario.devices
    script = scenario.stage_direction(plan.script)
    failure, figures, name = None, [], url or "xiaozhi-trio"
    with tempfile.TemporaryFile() as log:
        try:
            async with AsyncExitStack() as stack:
                target = await _target(plan, script, url, log, stack)
                name = target.name
                stage = Stage(
                    target=target,
                    fleet=await stack.enter_async_context(open_fleet(plan.processes)),
                    strangers=await stack.enter_async_context(
                        open_fleet(1, first_device=_STRANGERS_BEGIN)
                    ),
                    devices=devices,
                    script=script,
                )
                figures = list(await scenario.play(stage))
        except* (ScenarioFailed, NoSuchProcess) as errors:
            failure = _told(errors)
        except* ChildFailed as errors:
            log.seek(0)
            tail = log.read()[-_LOG_SHOWN:].decode("utf-8", "replace")
            failure = f"{_told(errors)}\n{tail}"
    return Result(
        target=name,
        scenario=scenario.name,
        devices=devices,
        round=number,
        figures=figures,
        failure=failure,
    )


async def _target(
    plan: Plan, script: Script, url: str | None, log: IO[bytes], stack: AsyncExitStack
) -> Target:
    if url is None:
        target = await stack.enter_async_context(own_server(script, plan.engines, log))
    else:
        target = await trio.to_thread.run_sync(running_server, url)
    # Where another server finds the end of a turn is unknown: both get a released button.
    return attrs.evolve(target, ends_with=None) if plan.against else target


def _told(errors: BaseExceptionGroup) -> str:
    while isinstance(errors.exceptions[0], BaseExceptionGroup):
        errors = errors.exceptions[0]
    return str(errors.exceptions[0])


def allow_many_files() -> None:
    """Raise the limit of open files as far as this user may; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
