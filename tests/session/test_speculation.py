"""Answers prepared while the speaker may still go on: nothing of them shows too early."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
import trio.testing

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedStreamingRecognizer,
    ScriptedSynthesizer,
)

ASR_SECONDS = LLM_SECONDS = TTS_SECONDS = 0.05
START_GAP = 0.06
FRAME = 0.02

MODES = ["auto", "realtime"]


def settings(**listening) -> Settings:
    # By silence alone, for what is said here is no sentence.
    return Settings(listening=ListeningSettings(**{"end_of_turn": "silence", **listening}))


async def meet(talk, mode: str = "auto", **more):
    """A device that listens, and engines of 50 ms each."""
    engines = {
        "asr": ScriptedRecognizer("what is the time", seconds=ASR_SECONDS),
        "llm": ScriptedLanguageModel(
            ["It is noon. ", "Time to eat."], first_seconds=LLM_SECONDS, piece_seconds=0.025
        ),
        "tts": ScriptedSynthesizer(seconds=TTS_SECONDS),
        "settings": settings(),
        "frame_ms": 20,
    }
    t = await talk(**{**engines, **more})
    await t.device.hello()
    await t.device.listen(mode)
    return t


def said(t) -> list[tuple[str, str]]:
    """The history, as the model would be reminded of it."""
    dialogue = t.session._conversation._tools.history.dialogue("")
    return [(message.role, message.content) for message in dialogue[1:]]


def working(t) -> tuple[int, int]:
    return t.llm.generating, t.tts.speaking


def tasks() -> int:
    """How many there are in all."""

    def under(task: trio.lowlevel.Task) -> int:
        return 1 + sum(
            under(child) for nursery in task.child_nurseries for child in nursery.child_tasks
        )

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return under(root)


async def quiet(t, seconds: float) -> None:
    await t.device.silence(seconds)
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("mode", MODES)
async def test_the_reply_is_ready_when_the_turn_ends(autojump_clock, talk, mode) -> None:
    t = await meet(talk, mode)
    await t.device.speak(1.0)
    end = trio.current_time()
    await t.device.silence(1.5)
    await t.device.wait_for("audio")
    (stt,) = t.device.of_kind("stt")
    (start,) = t.device.of_kind("tts start")
    assert stt.at == start.at
    committed = stt.at
    assert committed - end == pytest.approx(0.6, abs=0.05)
    assert t.device.of_kind("audio")[0].at - committed == pytest.approx(START_GAP, abs=0.001)


async def test_without_speculation_the_engines_take_their_time(autojump_clock, talk) -> None:
    t = await meet(talk, settings=settings(speculation=False))
    await t.device.speak(1.0)
    await t.device.silence(0.58)
    assert not t.asr.utterances
    assert not t.llm.dialogues
    await t.device.silence(1.0)
    await t.device.wait_for("audio")
    (stt,) = t.device.of_kind("stt")
    first = t.device.of_kind("audio")[0].at
    # The transcript is the end of the recognition, `tts start` comes with it.
    assert first - stt.at == pytest.approx(LLM_SECONDS + 0.025 + TTS_SECONDS, abs=0.03)


async def test_nothing_leaves_and_nothing_is_remembered_before_the_end(
    autojump_clock, talk
) -> None:
    t = await meet(talk)
    await t.device.speak(1.0)
    await quiet(t, 0.56)
    assert t.tts.sentences == ["It is noon."]
    assert t.device.kinds == ["hello"]
    assert said(t) == []
    await quiet(t, 0.1)
    assert t.device.kinds[:4] == ["hello", "stt", "tts start", "llm"]
    assert said(t) == [("user", "what is the time")]


async def test_only_the_first_sentence_is_made_before_the_end(autojump_clock, talk) -> None:
    llm = ScriptedLanguageModel([f"Sentence number {n}. " for n in range(20)])
    t = await meet(talk, llm=llm)
    await t.device.speak(1.0)
    await quiet(t, 0.56)
    assert len(t.tts.sentences) == 1
    await t.device.wait_until(lambda: len(t.device.of_kind("tts sentence_start")) == 2)
    assert len(t.tts.sentences) > 1


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.4])
@pytest.mark.parametrize("mode", [*MODES, "manual"])
async def test_a_withdrawn_speculation_leaves_nothing(autojump_clock, talk, mode, seconds) -> None:
    """Whichever engine it was at."""
    t = await meet(
        talk,
        mode,
        asr=ScriptedRecognizer("what is the time", seconds=seconds),
        llm=ScriptedLanguageModel(["It is noon. "], first_seconds=seconds),
        tts=ScriptedSynthesizer(seconds=seconds),
    )
    await t.device.speak(1.0)
    await trio.testing.wait_all_tasks_blocked()
    before = tasks()
    await quiet(t, 0.4)
    assert tasks() > before
    await t.device.speak(0.2)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before
    assert working(t) == (0, 0)
    assert t.device.kinds == ["hello"]
    assert said(t) == []


async def test_the_trace_tells_of_withdrawn_speculations(autojump_clock, talk, log_lines) -> None:
    t = await meet(talk)
    for _ in range(2):
        await t.device.speak(0.5)
        await t.device.silence(0.4)
    await t.device.speak(0.5)
    await t.device.silence(0.8)
    await t.device.wait_for("tts stop")
    (over,) = log_lines("turn over")
    assert over["discarded"] == 2
    # Of the recogniser, of the model until its sentence was whole, and of the voice.
    assert over["wasted_ms"] == 2 * (50 + 50 + 25 + 50)
    assert over["outcome"] == "finished"
    trace = t.session._services.traces.turns()[-1].trace
    assert [attempt.speculative for attempt in trace.attempts] == [True] * 3


@pytest.mark.parametrize("most", [1, 3])
async def test_so_many_speculations_a_turn_and_no_more(autojump_clock, talk, most) -> None:
    t = await meet(talk, settings=settings(max_speculations=most))
    for _ in range(5):
        await t.device.speak(0.5)
        await quiet(t, 0.4)
    assert len(t.llm.dialogues) == most
    await t.device.silence(0.5)
    await t.device.wait_for("tts stop")
    assert len(t.llm.dialogues) == most + 1
    # And as many for the next turn.
    await t.device.listen()
    for _ in range(5):
        await t.device.speak(0.5)
        await quiet(t, 0.4)
    assert len(t.llm.dialogues) == 2 * most + 1


async def test_a_new_press_of_the_button_counts_anew(autojump_clock, talk) -> None:
    t = await meet(talk, "manual")
    for _ in range(4):
        await t.device.speak(0.5)
        await quiet(t, 0.4)
    assert len(t.llm.dialogues) == 3
    await t.device.listen("manual")
    await t.device.speak(0.5)
    await quiet(t, 0.4)
    assert len(t.llm.dialogues) == 4


async def test_what_was_never_answered_does_not_count(autojump_clock, talk) -> None:
    t = await meet(talk, "realtime")
    for _ in range(3):
        await t.device.speak(0.5)
        await quiet(t, 0.4)
    await t.device.abort()
    await quiet(t, 1.0)
    await t.device.speak(0.5)
    await quiet(t, 0.4)
    assert len(t.llm.dialogues) == 4


async def test_one_speculation_at_a_time(autojump_clock, talk) -> None:
    t = await meet(talk, llm=ScriptedLanguageModel(["It is noon."], first_seconds=5))
    for _ in range(4):
        await t.device.speak(0.4)
        await quiet(t, 0.3)
        assert t.llm.generating <= 1
    assert len(t.llm.dialogues) == 3


@pytest.mark.parametrize("busy", ["asr", "llm", "tts"])
async def test_no_speculation_while_others_wait_for_an_engine(autojump_clock, talk, busy) -> None:
    t = await meet(talk)
    getattr(t, busy).is_busy = True
    await t.device.speak(1.0)
    await quiet(t, 0.56)
    assert not t.llm.dialogues
    await t.device.silence(0.4)
    await t.device.wait_for("tts stop")
    assert len(t.llm.dialogues) == 1


async def test_a_recogniser_busy_with_these_very_words_is_no_hindrance(
    autojump_clock, talk
) -> None:
    class OneAtATime(ScriptedRecognizer):
        async def transcribe(self, pcm: bytes):
            self.is_busy = True
            try:
                return await super().transcribe(pcm)
            finally:
                self.is_busy = False

    t = await meet(talk, asr=OneAtATime("what is the time", seconds=0.3))
    await t.device.speak(1.0)
    await quiet(t, 0.56)
    assert len(t.asr.utterances) == 1
    assert len(t.llm.dialogues) == 1


async def stutter(t, times: int, *, pause: float) -> None:
    for _ in range(times):
        await t.device.speak(0.2)
        await t.device.silence(pause)


@pytest.mark.parametrize("most", [1, 3])
async def test_short_pauses_are_recognised_so_often_and_no_more(autojump_clock, talk, most) -> None:
    t = await meet(talk, settings=settings(max_speculations=most))
    await stutter(t, 20, pause=0.16)
    assert len(t.asr.utterances) == most
    await t.device.speak(0.2)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == most + 1
    assert t.asr.heard_ms[-1] > 20 * 360


@pytest.mark.parametrize("most", [1, 3])
async def test_longer_pauses_are_recognised_more_often(autojump_clock, talk, most) -> None:
    """What was said decides how long to wait, also in the tenth group of a number."""
    t = await meet(talk, settings=settings(max_speculations=most))
    await stutter(t, 20, pause=0.3)
    assert len(t.asr.utterances) == 4 * most
    assert len(t.llm.dialogues) == most
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 4 * most + 1
    # And as often in the next turn.
    await t.device.listen()
    await stutter(t, 3, pause=0.16)
    assert len(t.asr.utterances) == 4 * most + 1 + min(most, 3)


async def test_one_early_recognition_at_a_time(autojump_clock, talk) -> None:
    class Counting(ScriptedRecognizer):
        at_work = most = 0

        async def transcribe(self, pcm: bytes):
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            try:
                return await super().transcribe(pcm)
            finally:
                self.at_work -= 1

    t = await meet(talk, asr=Counting("what is the time", seconds=5))
    await stutter(t, 10, pause=0.3)
    await quiet(t, 0.3)
    assert t.asr.most == 1


async def test_one_that_follows_the_speech_may_be_asked_at_every_pause(
    autojump_clock, talk
) -> None:
    t = await meet(talk, asr=ScriptedStreamingRecognizer("what is the time"))
    await stutter(t, 20, pause=0.16)
    recognition = t.session._conversation._recognition
    assert recognition is not None
    assert not t.asr.utterances


async def test_recognitions_in_vain_are_told(autojump_clock, talk, log_lines) -> None:
    t = await meet(talk)
    await stutter(t, 5, pause=0.16)
    await t.device.speak(0.2)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    (over,) = log_lines("turn over")
    assert "discarded" not in over
    assert over["wasted_ms"] == 3 * 50


async def test_the_transcript_of_the_pause_is_that_of_the_turn(autojump_clock, talk) -> None:
    t = await meet(talk)
    await t.device.speak(1.0)
    await t.device.silence(0.8)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 1
    assert len(t.llm.dialogues) == 1


async def test_what_is_answered_is_all_that_was_said(autojump_clock, talk) -> None:
    t = await meet(talk, asr=ScriptedRecognizer("what is", "what is the time"))
    await t.device.speak(1.0)
    await t.device.silence(0.4)
    await t.device.speak(1.0)
    await t.device.silence(0.8)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "what is the time"
    assert [dialogue[-1].content for dialogue in t.llm.dialogues] == [
        "what is",
        "what is the time",
    ]
    assert t.asr.heard_ms[-1] > 2000


async def test_a_click_in_the_pause_is_no_speech(autojump_clock, talk) -> None:
    t = await meet(talk)
    await t.device.speak(1.0)
    # 1.28 s are whole windows of the detector, of which one hears it.
    await t.device.silence(0.28)
    await t.device.speak(0.02)
    await t.device.silence(0.8)
    await t.device.wait_for("tts stop")
    assert len(t.llm.dialogues) == 1


async def test_released_at_the_button_with_what_a_pause_prepared(autojump_clock, talk) -> None:
    t = await meet(talk, "manual")
    await t.device.speak(1.0)
    await t.device.silence(0.4)
    assert t.device.kinds == ["hello"]
    await t.device.stop_listening()
    released = trio.current_time()
    await t.device.wait_for("audio")
    assert t.device.of_kind("stt")[0].at == released
    assert t.device.of_kind("audio")[0].at - released == pytest.approx(START_GAP, abs=0.001)


async def test_a_failure_while_speculating_is_told_at_the_end_only(autojump_clock, talk) -> None:
    broken = EngineError("no", engine="llm", category=EngineErrorCategory.INTERNAL)
    t = await meet(talk, llm=ScriptedLanguageModel([broken]))
    await t.device.speak(1.0)
    await quiet(t, 0.56)
    assert t.device.kinds == ["hello"]
    await t.device.silence(0.3)
    await t.device.wait_for("tts stop")
    assert t.device.kinds.count("tts start") == 1


async def test_speech_is_paced_from_the_release_and_not_from_the_speculation(
    autojump_clock, talk
) -> None:
    t = await meet(talk)
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    start = t.device.of_kind("tts start")[0].at
    audio = [event.at for event in t.device.of_kind("audio")]
    for count, at in enumerate(audio):
        assert count * FRAME <= at - start - START_GAP + 0.3 + 0.001
    assert all(later >= earlier for earlier, later in pairwise(audio))
