from __future__ import annotations

from typing import Any

import pytest
import trio

from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.turn_trace import Moment, TurnTrace

pytest.importorskip("prometheus_client")

from xiaozhi_trio.telemetry.metrics import Metrics

HEALTH: dict[str, Any] = {
    "status": "loading",
    "version": "1.2.3",
    "uptime_seconds": 12.5,
    "sessions": 4,
    "engines": {
        "asr": {"engine": "whisper", "state": "ready", "seconds": 1},
        "llm": {"engine": "llama", "state": "loading", "seconds": 2},
    },
}


async def lines_of(metrics: Metrics) -> list[str]:
    return (await metrics.page()).decode().splitlines()


def a_turn() -> TurnTrace:
    trace = TurnTrace(number=1, occasion="spoken")
    with trace.attempt(speculative=True).stage("asr", engine="whisper") as stage:
        pass
    stage.began = (stage.ended or 0.0) - 0.2
    trace.recognised_in_vain(0.3)
    trace.attempt(speculative=True)
    end = trio.current_time()
    trace.mark(Moment.TRANSCRIPT, at=end - 0.1)
    trace.mark(Moment.COMMITTED_END, at=end)
    with pytest.raises(ValueError, match="x"), trace.stage("llm", engine="llama"):
        raise ValueError("x")
    trace.mark(Moment.FIRST_FRAME, at=end + 0.065)
    trace.mark(Moment.INTERRUPTED, reason="noise")
    trace.mark(Moment.RESUMED)
    trace.conclude("failed")
    return trace


@pytest.fixture
async def observed() -> Metrics:
    metrics = Metrics(Counters(), lambda: HEALTH)
    await metrics.take([a_turn()])
    return metrics


@pytest.mark.parametrize(
    "line",
    [
        'xiaozhi_turns_total{occasion="spoken",outcome="failed"} 1.0',
        'xiaozhi_turn_seconds_bucket{le="0.04",moment="first_audio"} 0.0',
        'xiaozhi_turn_seconds_bucket{le="0.07",moment="first_audio"} 1.0',
        # It was there before the end of the speech.
        'xiaozhi_turn_seconds_sum{moment="transcript"} 0.0',
        'xiaozhi_stage_seconds_sum{engine="whisper",outcome="ok",stage="asr"} 0.2',
        'xiaozhi_stage_failures_total{category="ValueError",engine="llama",stage="llm"} 1.0',
        'xiaozhi_interruptions_total{reason="noise"} 1.0',
        "xiaozhi_false_interruptions_total 1.0",
        'xiaozhi_speculations_total{result="discarded"} 1.0',
        'xiaozhi_speculations_total{result="used"} 1.0',
        "xiaozhi_speculation_wasted_seconds_total 0.3",
    ],
)
async def test_turns_are_observed(observed: Metrics, line: str) -> None:
    found = await lines_of(observed)
    name, value = line.rsplit(" ", 1)
    (shown,) = [other for other in found if other.startswith(f"{name} ")]
    assert float(shown.rsplit(" ", 1)[1]) == pytest.approx(float(value))


async def test_what_was_counted_and_the_health() -> None:
    counters = Counters()
    metrics = Metrics(counters, lambda: HEALTH)
    counters.count("handshakes_refused", reason="busy")
    counters.count("handshakes_refused", reason="busy")
    counters.count("handshakes_refused", status="401")
    counters.count("stray")
    lines = await lines_of(metrics)
    for line in (
        'xiaozhi_handshakes_refused_total{reason="busy",status=""} 2.0',
        'xiaozhi_handshakes_refused_total{reason="",status="401"} 1.0',
        "xiaozhi_stray_total 1.0",
        "xiaozhi_sessions 4.0",
        "xiaozhi_uptime_seconds 12.5",
        'xiaozhi_server{status="loading",version="1.2.3"} 1.0',
        'xiaozhi_engine_ready{engine="whisper",kind="asr",state="ready"} 1.0',
        'xiaozhi_engine_ready{engine="llama",kind="llm",state="loading"} 0.0',
    ):
        assert line in lines


async def test_two_servers_in_one_process_do_not_mix() -> None:
    one, two = Metrics(Counters(), lambda: HEALTH), Metrics(Counters(), lambda: HEALTH)
    trace = TurnTrace(number=1, occasion="typed")
    trace.conclude("finished")
    one.observe(trace)
    one.close()
    assert any("xiaozhi_turns_total{" in line for line in await lines_of(one))
    assert not any("xiaozhi_turns_total{" in line for line in await lines_of(two))
