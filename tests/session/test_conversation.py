"""Turns as a device lives through them, on a virtual clock."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)
from xiaozhi_trio.testing.engines import LoudnessStream
from xiaozhi_trio.wire.closing import Closing


async def test_a_spoken_question_is_answered_in_speech(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert t.device.kinds == [
        "hello",
        "stt",
        "tts start",
        "llm",
        "tts sentence_start",
        "audio",
        "tts stop",
    ]


async def test_a_failing_detector_costs_the_audio_and_nothing_else(autojump_clock, talk) -> None:
    class Failing(LoudnessDetector):
        def open_stream(self) -> LoudnessStream:
            return FailingStream(500)

    class FailingStream(LoudnessStream):
        async def accept(self, pcm: bytes) -> list[float]:
            await trio.lowlevel.checkpoint()
            raise EngineError("busy", engine="vad", category=EngineErrorCategory.BUSY)

    t = await talk(vad=Failing())
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    assert not t.asr.utterances


async def test_a_voice_that_dies_ends_the_reply_and_the_thinking(autojump_clock, talk) -> None:
    def fails(text: str) -> EngineError | None:
        broken = EngineError("out of order", engine="tts", category=EngineErrorCategory.INTERNAL)
        return None if "first" in text else broken

    t = await talk(
        llm=ScriptedLanguageModel(["The first sentence. ", *["The next sentence. "] * 50]),
        tts=ScriptedSynthesizer(fails=fails),
    )
    await t.device.hello()
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    assert len(t.tts.sentences) == 3
    assert t.llm.generating == 0
    assert len(t.device.of_kind("alert")) == 1


async def test_sentences_of_markup_alone_are_passed_over(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["Hello there.\n", "---\n", "😀\n", "Bye now."]))
    await t.device.hello()
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    assert t.tts.sentences == ["Hello there.", "Bye now."]


async def test_the_next_sentence_is_synthesised_while_one_plays(autojump_clock, talk) -> None:
    t = await talk(
        llm=ScriptedLanguageModel(["The first sentence here. ", "Then the second one."]),
        tts=ScriptedSynthesizer(seconds=1.0),
    )
    await t.device.hello()
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    audio = [event.at for event in t.device.of_kind("audio")]
    assert max(later - earlier for earlier, later in pairwise(audio)) < 0.07


async def test_a_peer_that_only_writes_is_cut_off(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    t.session.outbox.next_payload = trio.sleep_forever
    with suppress(trio.BrokenResourceError):
        for _ in range(1000):
            await t.device.abort()
    assert t.closing.reason == "peer_stalled"


async def test_end_keeps_its_first_reason(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    t.session.end(Closing(1001, "server_shutdown"))
    t.session.end(Closing(1000, "replaced"))
    await t.device.wait_for_hang_up()
    assert t.closing == Closing(1001, "server_shutdown")


async def test_a_transcript_that_comes_after_the_interruption_is_forgotten(
    autojump_clock, talk
) -> None:
    """A model in a thread ends what it has begun, cancelled or not."""

    class InThread(ScriptedRecognizer):
        async def transcribe(self, pcm: bytes):
            with trio.CancelScope(shield=True):
                return await super().transcribe(pcm)

    t = await talk(asr=InThread("too late", seconds=5))
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await trio.sleep(0.1)
    await t.device.detect("one")
    await t.device.wait_for("tts stop")
    await trio.sleep(5)
    await t.device.detect("two")
    await t.device.wait_for("tts stop", count=2)
    said = [message.content for message in t.llm.dialogues[-1][1:]]
    assert said == ["one", "Fine, thank you.", "two"]


async def test_a_peer_that_sends_only_nonsense_does_not_fill_the_log(
    autojump_clock, talk, log_lines
) -> None:
    t = await talk()
    await t.device.hello()
    for _ in range(200):
        await t.device.send_raw("nonsense")
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    complaints = log_lines("message ignored")
    assert 1 <= len(complaints) <= 20
    assert complaints[-1]["last_shown"]


async def test_the_end_of_a_turn_is_logged_with_its_number_and_times(
    autojump_clock, talk, log_lines
) -> None:
    t = await talk(llm=ScriptedLanguageModel(["A long story. "] * 20))
    await t.device.hello()
    await t.device.detect("tell me a story")
    await t.device.wait_for("audio", count=10)
    await t.device.abort()
    await t.device.wait_for("tts stop")
    (over,) = log_lines("turn over")
    assert over["turn"] == 1
    assert over["outcome"] == "interrupted"
    assert over["first_audio_ms"] >= 60


async def test_a_transcript_that_no_message_can_carry_is_mended(autojump_clock, talk) -> None:
    t = await talk(asr=ScriptedRecognizer("hel\ud83dlo"))
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "hello"


async def test_a_reply_lasts_until_a_slow_network_has_let_it_through(talk, autojump_clock) -> None:
    t = await talk(llm=ScriptedLanguageModel(["Fine, thank you."]))
    take, flows = t.session.outbox.next_payload, trio.Event()

    async def next_payload() -> str | bytes:
        payload = await take()
        if isinstance(payload, bytes) and len(t.device.of_kind("audio")) == 10:
            await flows.wait()
        return payload

    t.session.outbox.next_payload = next_payload
    await t.device.hello()
    await t.device.detect("how are you")
    await t.device.wait_for("audio", count=10)
    await trio.sleep(5)
    assert t.device.of_kind("tts stop") == []
    flows.set()
    resumed = trio.current_time()
    stop = await t.device.wait_for("tts stop")
    arrived = sum(event.at >= resumed for event in t.device.of_kind("audio"))
    assert arrived == 6
    assert stop.at - resumed >= (arrived - 1) * 0.06
