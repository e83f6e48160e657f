from __future__ import annotations

import pytest

from xiaozhi_trio.bench.speculation import Speculation
from xiaozhi_trio.telemetry.turn_trace import TurnTrace


async def test_what_engines_did_in_vain_is_added_up(autojump_clock) -> None:
    clock, told = autojump_clock, Speculation()
    trace = TurnTrace(number=1, occasion="spoken", on_conclusion=told.note)
    for seconds in (1, 2, 4):
        attempt = trace.attempt(speculative=True)
        with attempt.stage("llm"), attempt.stage("tts"):
            clock.jump(seconds)
    trace.conclude("finished")
    assert (told.turns, told.begun, told.discarded) == (1, 3, 2)
    assert told.wasted_ms == pytest.approx(6000)


async def test_an_answer_begun_at_the_end_is_not_prepared() -> None:
    told = Speculation()
    trace = TurnTrace(number=1, occasion="spoken", on_conclusion=told.note)
    trace.attempt()
    trace.conclude("finished")
    TurnTrace(number=2, occasion="typed", on_conclusion=told.note).conclude("finished")
    assert told == Speculation(turns=1)
