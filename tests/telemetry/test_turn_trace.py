from __future__ import annotations

import enum

import pytest
import trio

from xiaozhi_trio.telemetry.turn_trace import (
    MOST_MARKS,
    MOST_STAGES,
    Moment,
    StageOutcome,
    TurnTrace,
    failure_category,
)


class Category(enum.Enum):
    TIMEOUT = "timeout"


class EngineFailure(Exception):
    category = Category.TIMEOUT


async def fail_after(seconds: float) -> None:
    await trio.sleep(seconds)
    raise EngineFailure


def spoken() -> TurnTrace:
    return TurnTrace(number=3, occasion="spoken", device="aa:bb", session="s1")


async def test_a_spoken_turn_is_told_from_the_end_of_the_speech(autojump_clock) -> None:
    trace = spoken()
    trace.mark(Moment.VOICE_START)
    await trio.sleep(1.2)
    trace.mark(Moment.COMMITTED_END)
    with trace.stage("asr", engine="whisper"):
        await trio.sleep(0.05)
    trace.mark(Moment.TRANSCRIPT)
    trace.measure(transcript_characters=9)
    with trace.stage("llm", engine="llama"):
        await trio.sleep(0.05)
        trace.mark(Moment.FIRST_TOKEN)
    first = trio.current_time()
    await trio.sleep(0.2)
    trace.mark(Moment.FIRST_FRAME, at=first)
    assert trace.conclude("finished")
    assert trace.as_fields() == {
        "turn": 3,
        "outcome": "finished",
        "occasion": "spoken",
        "voice_start_ms": -1200,
        "transcript_ms": 50,
        "first_token_ms": 100,
        "first_audio_ms": 100,
        "over_ms": 300,
        "asr": "whisper",
        "llm": "llama",
        "transcript_characters": 9,
    }


async def test_a_typed_turn_is_told_from_its_beginning(autojump_clock) -> None:
    trace = TurnTrace(number=1, occasion="typed")
    await trio.sleep(0.3)
    trace.mark(Moment.FIRST_TOKEN)
    assert trace.origin == trace.began
    assert trace.as_fields()["first_token_ms"] == 300
    assert "over_ms" not in trace.as_fields()


async def test_what_happens_once_is_marked_once(autojump_clock) -> None:
    trace = spoken()
    trace.mark(Moment.FIRST_TOKEN)
    await trio.sleep(1)
    trace.mark(Moment.FIRST_TOKEN)
    assert [mark.at for mark in trace.marks] == [trace.began]


async def test_stages_tell_how_they_ended(autojump_clock) -> None:
    trace = spoken()
    with trace.stage("asr", engine="a"):
        await trio.sleep(1)
    with pytest.raises(EngineFailure), trace.stage("llm", engine="b"):
        await fail_after(2)
    with trio.move_on_after(3), trace.stage("tts", engine="c") as stage:
        stage.engine = "fallback"
        await trio.sleep_forever()
    assert [(s.name, s.engine, s.outcome, s.category) for s in trace.stages] == [
        ("asr", "a", StageOutcome.OK, ""),
        ("llm", "b", StageOutcome.FAILED, "timeout"),
        ("tts", "fallback", StageOutcome.CANCELLED, ""),
    ]
    assert [s.ended - s.began for s in trace.stages] == [1, 2, 3]
    assert trace.as_fields()["failures"] == "llm timeout"


async def test_a_stage_with_tasks_of_its_own_is_judged_by_what_went_wrong(autojump_clock) -> None:
    trace = spoken()

    with pytest.RaisesGroup(EngineFailure), trace.stage("tts"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_after, 1)
    assert trace.stages[0].category == "timeout"


def test_failures_have_a_category_and_cancellations_have_none() -> None:
    assert failure_category(EngineFailure()) == "timeout"
    assert failure_category(ValueError("secret")) == "ValueError"
    assert failure_category(KeyboardInterrupt()) == ""
    group = BaseExceptionGroup("", [KeyboardInterrupt(), BaseExceptionGroup("", [ValueError()])])
    assert failure_category(group) == "ValueError"


async def test_a_turn_of_two_cancelled_speculations(autojump_clock) -> None:
    trace = spoken()
    trace.mark(Moment.VOICE_START)
    for _ in range(2):
        await trio.sleep(1)
        trace.mark(Moment.TENTATIVE_END)
        attempt = trace.attempt(speculative=True)
        with trio.move_on_after(0.1), attempt.stage("asr", engine="whisper"):
            await trio.sleep_forever()
        attempt.mark(Moment.TRANSCRIPT)
        # The recognition began before the attempt that waited for it.
        trace.recognised_in_vain(0.2)
        attempt.discard()
        trace.mark(Moment.VOICE_RESUMED)
        attempt.mark(Moment.FIRST_TOKEN)
    await trio.sleep(1)
    trace.mark(Moment.TENTATIVE_END)
    final = trace.attempt(speculative=True)
    with final.stage("asr", engine="whisper"):
        await trio.sleep(0.3)
    final.mark(Moment.TRANSCRIPT)
    await trio.sleep(0.1)
    trace.mark(Moment.COMMITTED_END)
    trace.conclude("finished")
    assert trace.answer is final
    assert [mark.attempt for mark in trace.marks if mark.moment is Moment.TRANSCRIPT] == [1, 2, 3]
    assert not any(mark.moment is Moment.FIRST_TOKEN for mark in trace.marks)
    fields = trace.as_fields()
    assert fields["transcript_ms"] == -100
    assert fields["tentative_end_ms"] == -400
    assert (fields["discarded"], fields["wasted_ms"]) == (2, 400)


async def test_a_recognition_in_vain_is_told_also_where_nothing_was_prepared() -> None:
    trace = spoken()
    trace.recognised_in_vain(0.05)
    trace.conclude("finished")
    trace.recognised_in_vain(1.0)
    fields = trace.as_fields()
    assert "discarded" not in fields
    assert fields["wasted_ms"] == 50


async def test_a_new_attempt_discards_the_one_before(autojump_clock) -> None:
    trace = spoken()
    first = trace.attempt(speculative=True)
    second = trace.attempt()
    assert first.discarded_at is not None
    assert trace.answer is second


async def test_nothing_changes_once_the_turn_is_concluded(autojump_clock) -> None:
    heard: list[str] = []
    trace = TurnTrace(
        number=1, occasion="typed", on_conclusion=lambda trace: heard.append(trace.outcome)
    )
    attempt = trace.attempt()
    with attempt.stage("llm"):
        await trio.sleep(1)
        assert trace.conclude("interrupted")
        await trio.sleep(1)
    assert not trace.conclude("cancelled")
    trace.mark(Moment.DRAINED)
    trace.measure(reply_characters=1)
    with attempt.stage("tts"):
        pass
    attempt.discard()
    assert heard == ["interrupted"]
    assert [(s.name, s.ended, s.outcome) for s in trace.stages] == [
        ("llm", trace.began + 1, StageOutcome.CANCELLED)
    ]
    assert (trace.marks, trace.lengths, attempt.discarded_at) == ([], {}, None)


async def test_interruptions_are_counted(autojump_clock) -> None:
    trace = spoken()
    trace.mark(Moment.INTERRUPTED, reason="noise")
    trace.mark(Moment.RESUMED)
    trace.mark(Moment.INTERRUPTED, reason="voice")
    assert trace.as_fields()["interruptions"] == 2
    assert [mark.reason for mark in trace.marks] == ["noise", "", "voice"]


async def test_a_trace_is_bounded(autojump_clock) -> None:
    trace = spoken()
    for _ in range(MOST_MARKS + 5):
        trace.mark(Moment.INTERRUPTED)
    for _ in range(MOST_STAGES + 5):
        with trace.stage("tts"):
            pass
    assert (len(trace.marks), len(trace.stages)) == (MOST_MARKS, MOST_STAGES)
    assert trace.left_out == 10
