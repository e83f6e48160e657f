"""Recognition while somebody speaks: sooner where it works, and never less."""

from __future__ import annotations

import attrs
import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback import FallbackChain, FallbackRecognizer
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.protocols import StreamingRecognizer, Transcript
from xiaozhi_trio.engines.slots import EngineSlot
from xiaozhi_trio.engines.streaming import streaming_recognizer
from xiaozhi_trio.session.listening import Utterance
from xiaozhi_trio.session.live_transcript import LiveTranscript, Transcriber
from xiaozhi_trio.session.recognition import Recognition
from xiaozhi_trio.testing import ScriptedRecognizer, ScriptedStreamingRecognizer

SECOND = bytes(32_000)


def broken(milliseconds: float) -> EngineError | None:
    if milliseconds < 1000:
        return None
    return EngineError("lost", engine="scripted-asr", category=EngineErrorCategory.UNAVAILABLE)


async def answered_after(talk, asr, *, speech: float = 3.0, settings: Settings | None = None):
    """The talk, and how long after the voice ended the transcript was shown, in seconds."""
    t = await talk(asr=asr, settings=settings)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(speech)
    ended = trio.current_time()
    await t.device.silence(1.0)
    stt = await t.device.wait_for("stt")
    seconds = stt.at - ended
    await t.device.wait_for("tts stop")
    return t, seconds


async def test_the_transcript_is_ready_at_the_end(autojump_clock, talk) -> None:
    """Though the engine takes half of the time that the speech takes."""
    asr = ScriptedStreamingRecognizer("hello there", pace=0.5, seconds=1.5)
    _, seconds = await answered_after(talk, asr)
    assert seconds < 0.75
    assert not asr.utterances
    assert asr.streaming == 0
    (stream,) = asr.streams
    assert 3500 < len(stream.pcm) / 32 < 4500


async def test_an_engine_as_slow_as_speech_lags_by_the_pre_roll_only(autojump_clock, talk) -> None:
    whole = ScriptedRecognizer("hello there", seconds=3.0)
    _, late = await answered_after(talk, whole)
    asr = ScriptedStreamingRecognizer("hello there", pace=1.0, seconds=3.0)
    _, soon = await answered_after(talk, asr)
    assert late > 3.0
    assert soon < 1.3
    assert not asr.utterances


async def test_a_stream_hears_the_same_as_the_whole(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there")
    await answered_after(talk, asr)
    whole = ScriptedRecognizer("hello there")
    await answered_after(talk, whole)
    assert asr.streams[0].pcm.startswith(whole.utterances[0])


async def test_a_push_to_talk_is_streamed_too(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there", pace=0.5, seconds=5.0)
    t = await talk(asr=asr)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(2.0)
    await t.device.stop_listening()
    began = trio.current_time()
    stt = await t.device.wait_for("stt")
    assert stt.at - began < 0.1
    await t.device.wait_for("tts stop")
    assert asr.streaming == 0


async def test_an_error_in_mid_stream_costs_time_and_no_word(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there", fails=broken, seconds=0.3)
    t, _ = await answered_after(talk, asr)
    assert t.device.of_kind("stt")[0].body["text"] == "hello there"
    assert len(asr.utterances) >= 1
    assert asr.heard_ms[-1] > 3000


async def test_a_bug_in_the_engine_is_an_error_of_it(autojump_clock, talk, log_lines) -> None:
    asr = ScriptedStreamingRecognizer("hello there", fails=lambda _: ZeroDivisionError())
    await answered_after(talk, asr)
    (line,) = log_lines("recognition of running speech failed")
    assert "ZeroDivisionError" in line["reason"]
    assert asr.utterances


async def test_a_stream_that_falls_behind_is_given_up(autojump_clock, talk, log_lines) -> None:
    asr = ScriptedStreamingRecognizer("hello there", pace=50.0, seconds=0.1)
    _, seconds = await answered_after(talk, asr, speech=9.0)
    assert log_lines("recognition falls behind the speech")
    assert seconds < 1.0
    assert asr.streaming == 0
    assert asr.utterances


async def test_a_stream_that_hangs_is_given_up_in_time(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there", pace=1000.0)
    settings = Settings()
    _, seconds = await answered_after(talk, asr, speech=1.0)
    assert seconds < settings.conversation.recognition_seconds / 2 + 1.0
    assert asr.streaming == 0


async def test_noise_leaves_no_stream_behind(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there", pace=0.1)
    t = await talk(asr=asr)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.abort()
    await trio.sleep(0.1)
    assert len(asr.streams) == 1
    assert asr.streaming == 0


async def test_who_goes_on_speaking_is_heard_from_the_beginning(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there", pace=0.1)
    t = await talk(asr=asr)
    await t.device.hello()
    await t.device.listen("auto")
    for _ in range(3):
        await t.device.speak(1.0)
        await t.device.silence(0.3)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    assert len(t.device.of_kind("stt")) == 1
    (stream,) = asr.streams
    assert len(stream.pcm) / 32 > 3900
    assert asr.streaming == 0


RECOGNIZER_DECIDES = Settings(
    listening=ListeningSettings(end_of_turn="recognizer", end_silence_ms=2000)
)


@pytest.mark.parametrize("ended_ms", [900, 1900])
async def test_the_engine_decides_that_it_was_the_end(autojump_clock, talk, ended_ms) -> None:
    """Also where it does so long after the pause was weighed."""
    asr = ScriptedStreamingRecognizer("hello there", ended_ms=ended_ms)
    _, seconds = await answered_after(talk, asr, speech=1.0, settings=RECOGNIZER_DECIDES)
    assert seconds == pytest.approx(0.3 if ended_ms == 900 else 0.95, abs=0.15)


async def test_without_its_word_the_silence_decides(autojump_clock, talk) -> None:
    asr = ScriptedStreamingRecognizer("hello there")
    t = await talk(asr=asr, settings=RECOGNIZER_DECIDES)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    ended = trio.current_time()
    await t.device.silence(2.5)
    stt = await t.device.wait_for("stt")
    assert stt.at - ended > 1.9


def chain(*recognizers) -> FallbackRecognizer:
    slots = [EngineSlot.of_ready(each) for each in recognizers]
    policy = FallbackPolicy(first_answer_seconds=5, failures=3, pause_seconds=30)
    return FallbackRecognizer(FallbackChain(slots, policy))


async def test_a_chain_streams_with_the_engine_it_would_ask() -> None:
    streaming, whole = ScriptedStreamingRecognizer(), ScriptedRecognizer()
    assert isinstance(streaming, StreamingRecognizer)
    assert streaming_recognizer(None) is None
    assert streaming_recognizer(whole) is None
    assert streaming_recognizer(streaming) is streaming
    assert streaming_recognizer(chain(streaming, whole)) is streaming
    assert streaming_recognizer(chain(whole, streaming)) is None


async def test_an_answer_that_is_none_is_no_answer(autojump_clock, nursery) -> None:
    asr = ScriptedStreamingRecognizer("whole")
    live = LiveTranscript(asr, 1, on_ended=lambda: None)
    asr.next_text = lambda: 7
    live.feed(SECOND)
    question = live.ask()
    nursery.start_soon(live.run)
    assert await question.answer() is None
    assert await live.ask().answer() is None


@attrs.frozen
class Heard:
    """A microphone that heard so much of one utterance."""

    utterance_number: int
    pcm: bytes

    def utterance_since(self, start: int) -> bytes:
        return self.pcm[start:]


async def test_the_last_packet_is_in_the_transcript(autojump_clock, nursery) -> None:
    asr = ScriptedStreamingRecognizer("hello")
    transcriber = Transcriber(EngineSlot.of_ready(asr), nursery, seconds=5.0, on_ended=lambda: None)
    transcriber.follow(Heard(1, SECOND))
    utterance = Utterance(SECOND + SECOND, 2000, number=1)
    assert (await transcriber.recognise(utterance).transcript()).text == "hello"
    assert asr.streams[0].pcm == utterance.pcm
    assert not asr.utterances


async def test_what_was_put_together_is_recognised_as_a_whole(autojump_clock, nursery) -> None:
    asr = ScriptedStreamingRecognizer("hello")
    transcriber = Transcriber(EngineSlot.of_ready(asr), nursery, seconds=5.0, on_ended=lambda: None)
    transcriber.follow(Heard(1, SECOND))
    await transcriber.recognise(Utterance(SECOND + SECOND, 2000)).transcript()
    assert asr.utterances == [SECOND + SECOND]


async def test_what_nobody_asks_any_more_is_not_answered(autojump_clock, nursery) -> None:
    asr = ScriptedStreamingRecognizer("hello", pace=1.0)
    live = LiveTranscript(asr, 1, on_ended=lambda: None)
    nursery.start_soon(live.run)
    live.feed(SECOND)
    question = live.ask()
    live.finish()
    await trio.sleep(0.5)
    assert asr.streaming == 1
    question.withdraw()
    await trio.sleep(0.01)
    assert asr.streaming == 0
    assert await question.answer() is None


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_step_nothing_is_left(autojump_clock, steps) -> None:
    asr = ScriptedStreamingRecognizer("hello", pace=0.1)
    live = LiveTranscript(asr, 1, on_ended=lambda: None)
    slot = EngineSlot.of_ready(asr)
    async with trio.open_nursery() as nursery:
        live.feed(SECOND)
        question = live.ask()
        recognition = Recognition(slot, SECOND, seconds=5.0, question=question)
        live.feed(SECOND)
        live.finish()
        nursery.start_soon(live.run)
        nursery.start_soon(recognition.run)
        for _ in range(steps):
            await trio.sleep(0.0 if steps < 7 else 0.05)
        live.cancel()
        with trio.fail_after(1):
            transcript = await recognition.transcript()
    assert transcript.text == "hello"
    assert asr.streaming == 0
    assert isinstance(transcript, Transcript)
