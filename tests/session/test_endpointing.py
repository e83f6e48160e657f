"""Where utterances begin and end, at the edges of what settings and devices allow."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.session.listening import Listening
from xiaozhi_trio.testing import LoudnessDetector, ScriptedLanguageModel
from xiaozhi_trio.testing.engines import LoudnessStream

AT_THE_END = Settings(listening=ListeningSettings(speculation=False))
"""Utterances are recognised once, at their end."""

STORY = ["It was a dark and stormy night. "] * 20


async def test_no_pre_roll_is_a_setting_like_any_other(autojump_clock, talk) -> None:
    t = await talk(settings=Settings(listening=ListeningSettings(pre_roll_ms=0, speculation=False)))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.silence(0.6)
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("stt")
    assert t.asr.heard_ms == [pytest.approx(1000 + 600, abs=150)]


async def test_chunks_without_audio_are_not_kept() -> None:
    listening = Listening(ListeningSettings())
    for _ in range(100):
        await listening.accept(b"")
    assert not listening._pre_roll._chunks


@pytest.mark.parametrize("then", ["silence", "nothing"])
async def test_a_sound_too_short_to_interrupt_does_not_at_its_end_either(
    autojump_clock, talk, then
) -> None:
    settings = Settings(listening=ListeningSettings(barge_in_ms=1000))
    t = await talk(settings=settings, llm=ScriptedLanguageModel(STORY))
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("tell me a story")
    await t.device.wait_for("audio", count=20)
    await t.device.speak(0.6)
    if then == "silence":
        await t.device.silence(1.2)
    else:
        await trio.sleep(5)
    assert not t.asr.utterances
    assert not t.device.of_kind("tts stop")
    await t.device.speak(1.2)
    await t.device.wait_for("tts stop")


async def test_what_was_said_into_a_button_before_the_detector_was_loaded_counts(
    autojump_clock, talk
) -> None:
    t = await talk(load=True, vad=LoudnessDetector(load_seconds=1.5), settings=AT_THE_END)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.2)
    await t.device.silence(0.6)
    await t.device.stop_listening()
    await t.device.wait_for("stt")
    assert t.asr.heard_ms == [1800]


class Unsteady(LoudnessDetector):
    """Works until it is told to fail."""

    fails = False

    def open_stream(self) -> LoudnessStream:
        detector = self

        class Stream(LoudnessStream):
            async def accept(self, pcm: bytes):
                if detector.fails:
                    await trio.lowlevel.checkpoint()
                    raise EngineError("busy", engine="vad", category=EngineErrorCategory.BUSY)
                return await super().accept(pcm)

        return Stream(500)


async def test_an_utterance_whose_detector_dies_ends_at_the_longest(autojump_clock, talk) -> None:
    vad = Unsteady()
    t = await talk(vad=vad, settings=Settings(listening=ListeningSettings(max_utterance_seconds=3)))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    vad.fails = True
    await t.device.silence(5.0)
    assert t.asr.heard_ms == [3000]


async def test_a_detector_that_keeps_failing_is_told_once(autojump_clock, talk, log_lines) -> None:
    vad = Unsteady()
    t = await talk(vad=vad)
    await t.device.hello()
    await t.device.listen("auto")
    for fails in (True, False, True):
        vad.fails = fails
        await t.device.silence(3.0)
    assert len(log_lines("voice detection failed")) == 2


async def test_a_slow_detector_is_no_gap_between_packets(autojump_clock, talk) -> None:
    """Packets wait behind it; they have come."""

    class Slow(LoudnessDetector):
        def open_stream(self) -> LoudnessStream:
            return SlowStream(500)

    class SlowStream(LoudnessStream):
        heard = 0

        async def accept(self, pcm: bytes):
            self.heard += 1
            if self.heard == 10:
                await trio.sleep(2.5)
            return await super().accept(pcm)

    t = await talk(vad=Slow(), settings=AT_THE_END)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(3.0, burst=True)
    await t.device.silence(1.2, burst=True)
    await t.device.wait_for("tts stop")
    assert t.asr.heard_ms == [pytest.approx(3600, abs=150)]


@pytest.mark.parametrize("mode", ["auto", "realtime"])
@pytest.mark.parametrize("then", ["silence", "nothing"])
async def test_what_was_being_said_does_not_interrupt_the_answer_to_typed_text(
    autojump_clock, talk, mode, then
) -> None:
    t = await talk(llm=ScriptedLanguageModel(["It was a dark and stormy night. "] * 2))
    await t.device.hello()
    await t.device.listen(mode)
    await t.device.speak(0.6)
    await t.device.detect("tell me a story")
    if then == "silence":
        await t.device.silence(6)
    else:
        await trio.sleep(6)
    assert t.device.kinds.count("tts stop") == 1
    assert len(t.device.of_kind("tts sentence_start")) == 2
    assert not t.asr.utterances
