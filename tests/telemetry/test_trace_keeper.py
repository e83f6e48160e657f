from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from loguru import logger

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper
from xiaozhi_trio.telemetry.turn_trace import Moment


def keeper(**settings: int) -> TraceKeeper:
    return TraceKeeper(TelemetrySettings(**settings))


def live(traces: TraceKeeper, number: int, device: str = "aa") -> None:
    traces.begin(number, "typed", device=device).conclude("finished")


async def test_the_last_turns_of_each_device_are_kept(autojump_clock) -> None:
    traces = keeper(turns_per_device=2)
    for number in range(1, 4):
        live(traces, number, "aa")
    live(traces, 1, "bb")
    assert [trace.number for trace in traces.turns("aa")] == [2, 3]
    assert [trace.number for trace in traces.turns("bb")] == [1]
    assert traces.turns("cc") == ()


async def test_the_device_heard_of_least_recently_is_forgotten(autojump_clock) -> None:
    traces = keeper(devices=2)
    for device in ("aa", "bb", "aa", "cc"):
        live(traces, 1, device)
    assert traces.devices() == ("aa", "cc")


async def test_a_turn_is_kept_once_it_is_concluded(autojump_clock) -> None:
    traces = keeper()
    trace = traces.begin(1, "spoken", device="aa")
    assert traces.turns("aa") == ()
    trace.conclude("finished")
    trace.conclude("cancelled")
    assert traces.turns("aa") == (trace,)


async def test_none_are_kept_where_the_setting_says_so(autojump_clock) -> None:
    traces = keeper(turns_per_device=0)
    told = []
    traces.listen(told.append)
    live(traces, 1)
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
