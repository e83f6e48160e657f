from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from loguru import logger

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.telemetry.trace_keeper import KeptTurn, TraceKeeper
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    from collections.abc import Sequence


def keeper(**settings: int) -> TraceKeeper:
    return TraceKeeper(TelemetrySettings(**settings))


def live(traces: TraceKeeper, number: int, device: str = "aa") -> None:
    traces.begin(number, "typed", device=device).conclude("finished")


def numbers(turns: Sequence[KeptTurn]) -> list[int]:
    return [turn.trace.number for turn in turns]


async def test_the_last_turns_of_each_device_are_kept(autojump_clock) -> None:
    traces = keeper(turns_per_device=2)
    for number in range(1, 4):
        live(traces, number, "aa")
    live(traces, 1, "bb")
    assert numbers(traces.turns("aa")) == [2, 3]
    assert numbers(traces.turns("bb")) == [1]
    assert traces.turns("cc") == ()


async def test_the_device_heard_of_least_recently_is_forgotten(autojump_clock) -> None:
    traces = keeper(devices=2)
    for device in ("aa", "bb", "aa", "cc"):
        live(traces, 1, device)
    assert traces.devices() == ("aa", "cc")


async def test_the_newest_turns_of_all_devices_in_order(autojump_clock) -> None:
    traces = keeper()
    for number, device in enumerate(["aa", "bb", "aa", "cc", "bb"], start=1):
        live(traces, number, device)
    assert numbers(traces.turns()) == [1, 2, 3, 4, 5]
    assert numbers(traces.turns(last=3)) == [3, 4, 5]
    assert numbers(traces.turns("bb", last=1)) == [5]
    assert numbers(traces.turns(after=3)) == [4, 5]
    assert numbers(traces.turns("aa", after=3)) == []
    assert traces.serial == 5


async def test_a_turn_is_kept_once_it_is_concluded(autojump_clock) -> None:
    traces = keeper()
    trace = traces.begin(1, "spoken", device="aa")
    assert traces.turns("aa") == ()
    trace.conclude("finished")
    trace.conclude("cancelled")
    assert traces.turns("aa") == (KeptTurn(1, trace),)


async def test_none_are_kept_where_the_setting_says_so(autojump_clock) -> None:
    traces = keeper(turns_per_device=0)
    told = []
    with traces.telling(told.append):
        live(traces, 1)
    live(traces, 2)
    assert traces.devices() == ()
    assert [trace.number for trace in told] == [1]


async def test_a_turn_may_have_begun_before_its_trace(autojump_clock) -> None:
    await trio.sleep(5)
    trace = keeper().begin(1, "spoken", at=trio.current_time() - 2)
    trace.mark(Moment.TRANSCRIPT)
    assert trace.as_fields()["transcript_ms"] == 2000
    assert trace.began_unix == pytest.approx(time.time() - 2, abs=1)


async def test_a_concluded_turn_is_one_line_of_the_log(autojump_clock) -> None:
    lines: list[Any] = []
    sink = logger.add(lambda line: lines.append(line.record), level="INFO")
    trace = keeper().begin(4, "typed", device="aa")
    with trace.stage("llm", engine="llama"):
        await trio.sleep(0.25)
    trace.conclude("finished")
    logger.remove(sink)
    (line,) = lines
    assert line["message"] == "turn over"
    assert line["extra"] == trace.as_fields()
    assert line["extra"]["over_ms"] == 250
