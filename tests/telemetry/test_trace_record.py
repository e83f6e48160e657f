from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.telemetry.trace_keeper import KeptTurn
from xiaozhi_trio.telemetry.trace_record import (
    PageMalformed,
    TracePage,
    from_json,
    record_of,
    to_json,
)
from xiaozhi_trio.telemetry.turn_trace import Moment, TurnTrace


async def a_turn() -> TurnTrace:
    trace = TurnTrace(number=2, occasion="spoken", device="aa", session="s1", began_unix=1e9)
    trace.mark(Moment.VOICE_START)
    await trio.sleep(1)
    discarded = trace.attempt(speculative=True)
    discarded.discard()
    await trio.sleep(0.5)
    trace.attempt(speculative=True)
    trace.mark(Moment.COMMITTED_END)
    with trace.stage("llm", engine="llama"):
        await trio.sleep(0.25)
    trace.mark(Moment.INTERRUPTED, reason="noise")
    trace.measure(transcript_characters=3)
    trace.conclude("finished")
    return trace


async def test_a_record_counts_from_the_end_of_the_speech(autojump_clock) -> None:
    record = record_of(KeptTurn(7, await a_turn()))
    assert (record.serial, record.began_unix, record.began_ms, record.over_ms) == (
        7,
        1e9,
        -1500,
        250,
    )
    assert [(a.began_ms, a.discarded_ms) for a in record.attempts] == [(-500, -500), (0, None)]
    assert [(m.moment, m.ms, m.attempt, m.reason) for m in record.marks] == [
        ("voice_start", -1500, 0, ""),
        ("committed_end", 0, 0, ""),
        ("interrupted", 250, 2, "noise"),
    ]
    (stage,) = record.stages
    assert (stage.began_ms, stage.ended_ms, stage.outcome) == (0, 250, "ok")


async def test_a_page_comes_back_as_it_went(autojump_clock) -> None:
    page = TracePage(7, ("aa",), (record_of(KeptTurn(7, await a_turn())),))
    assert from_json(to_json(page)) == page


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"[]", b"{}", b'{"serial":1,"devices":[],"turns":[{}]}', b"\xff"]
)
def test_what_is_no_page_is_told(text: bytes) -> None:
    with pytest.raises(PageMalformed):
        from_json(text)
