from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.telemetry.counters import Count, Counters
from xiaozhi_trio.telemetry.trace_export import BATCH, FLUSH_SECONDS, ROOM, exporting
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.telemetry.turn_trace import TurnTrace


class Exporter:
    def __init__(self, seconds: float = 0.0) -> None:
        self.name = f"takes {seconds:g} s"
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.closed = 0

    async def take(self, traces: Sequence[TurnTrace]) -> None:
        await trio.sleep(self.seconds)
        self.batches.append([trace.number for trace in traces])

    def close(self) -> None:
        self.closed += 1


def live(keeper: TraceKeeper, *numbers: int) -> None:
    for number in numbers:
        keeper.begin(number, "typed").conclude("finished")


@pytest.fixture
def keeper() -> TraceKeeper:
    return TraceKeeper(TelemetrySettings())


async def test_every_exporter_gets_every_turn(autojump_clock, keeper) -> None:
    one, two = Exporter(), Exporter(1.0)
    async with exporting(keeper, [one, two], Counters()):
        live(keeper, 1)
        await trio.sleep(0.5)
        live(keeper, 2, 3)
        await trio.sleep(5)
        assert one.batches == two.batches == [[1], [2, 3]]
        assert not one.closed
    live(keeper, 4)
    assert one.batches == [[1], [2, 3]]
    assert (one.closed, two.closed) == (1, 1)


async def test_one_that_cannot_keep_up_loses_turns_and_holds_nobody_up(
    autojump_clock, keeper
) -> None:
    counters = Counters()
    slow, quick = Exporter(100.0), Exporter()
    async with exporting(keeper, [slow, quick], counters):
        live(keeper, 0)
        await trio.sleep(1)
        began = trio.current_time()
        live(keeper, *range(1, ROOM + 4))
        assert trio.current_time() == began
        await trio.sleep(1)
        # The quick one takes the first of them at once, and has room for the others.
        assert counters.snapshot() == (
            Count("traces_dropped", (("exporter", "takes 0 s"),), 2),
            Count("traces_dropped", (("exporter", "takes 100 s"),), 3),
        )
        assert max(map(len, quick.batches)) == BATCH


async def test_what_waits_at_the_end_is_given_out_for_a_while(autojump_clock, keeper, log) -> None:
    one, stuck = Exporter(FLUSH_SECONDS / 2), Exporter(1000)
    began = trio.current_time()
    async with exporting(keeper, [one, stuck], Counters()):
        live(keeper, *range(BATCH + 1))
    assert [len(batch) for batch in one.batches][:1] == [BATCH]
    assert trio.current_time() - began == FLUSH_SECONDS
    assert (one.closed, stuck.closed) == (1, 1)
    lost = [line for line in log if line["message"] == "traces were lost"]
    assert [line["turns"] for line in lost] == [1]


async def test_nothing_is_waited_for_when_all_is_cancelled(autojump_clock, keeper) -> None:
    stuck = Exporter(1000)
    began = trio.current_time()
    with trio.move_on_after(1):
        async with exporting(keeper, [stuck], Counters()):
            live(keeper, 1)
            await trio.sleep_forever()
    assert trio.current_time() - began == 1
    assert (stuck.batches, stuck.closed) == ([], 1)
