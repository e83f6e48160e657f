"""What a device notices where the first engine of a chain fails, on a virtual clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback import (
    FallbackChain,
    FallbackLanguageModel,
    FallbackRecognizer,
    FallbackSynthesizer,
)
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.named import under_name
from xiaozhi_trio.engines.protocols import LanguageModel, SpeechRecognizer, SpeechSynthesizer
from xiaozhi_trio.engines.slots import EngineSlot
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedStreamingRecognizer,
    ScriptedSynthesizer,
)
from xiaozhi_trio.testing.engines import LoudnessStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.protocols import Engine, PcmChunk
    from xiaozhi_trio.session.end_of_turn.strategy import Pause

PATIENCE = 4.0
POLICY = FallbackPolicy(first_answer_seconds=PATIENCE, failures=3, pause_seconds=10)
FOREVER = 10_000.0

DOWN = EngineError("refused", engine="first", category=EngineErrorCategory.CONNECTIVITY)
BUG = KeyError("choices")


def chain(*engines: Engine) -> FallbackChain[Any]:
    return FallbackChain([EngineSlot.of_ready(engine) for engine in engines], POLICY)


async def ask(t: Any) -> float:
    """Say something and wait for the end of the reply; seconds to its first audio."""
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    asked = trio.current_time()
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    kinds = t.device.kinds
    assert kinds.count("tts start") == kinds.count("tts stop") == 1
    assert kinds[-1] == "tts stop"
    first = next(event for event in t.device.events if event.kind == "audio")
    return first.at - asked


@pytest.mark.parametrize(
    ("first", "within"),
    [
        (ScriptedLanguageModel(["never"], first_seconds=FOREVER), PATIENCE + 1),
        (ScriptedLanguageModel([DOWN]), 1),
        (ScriptedLanguageModel([BUG]), 1),
    ],
    ids=["hangs", "refuses", "has a bug"],
)
async def test_the_second_language_model_answers(autojump_clock, talk, first, within) -> None:
    second = ScriptedLanguageModel(["The second answers."])
    t = await talk(llm=FallbackLanguageModel(chain(first, second)))
    assert await ask(t) < within
    assert t.tts.sentences == ["The second answers."]
    assert first.generating == second.generating == 0


@pytest.mark.parametrize(
    ("first", "within"),
    [
        (ScriptedRecognizer("never", seconds=FOREVER), PATIENCE + 1),
        (ScriptedRecognizer(DOWN), 1),
        (ScriptedRecognizer(BUG), 1),
    ],
    ids=["hangs", "refuses", "has a bug"],
)
async def test_the_second_recogniser_hears_the_same(autojump_clock, talk, first, within) -> None:
    second = ScriptedRecognizer("What time is it?")
    t = await talk(asr=FallbackRecognizer(chain(first, second)))
    assert await ask(t) < within
    assert first.utterances == second.utterances
    assert [message.body["text"] for message in t.device.of_kind("stt")] == ["What time is it?"]


@pytest.mark.parametrize(
    ("first", "within"),
    [
        (ScriptedSynthesizer(seconds=FOREVER), PATIENCE + 1),
        (ScriptedSynthesizer(fails=lambda _: DOWN), 1),
        (ScriptedSynthesizer(sample_rate=22_050, fails=lambda _: BUG), 1),
    ],
    ids=["hangs", "refuses", "has a bug"],
)
async def test_the_second_voice_speaks(autojump_clock, talk, first, within) -> None:
    second = ScriptedSynthesizer(sample_rate=16_000)
    t = await talk(tts=FallbackSynthesizer(chain(first, second)))
    assert await ask(t) < within
    assert second.sentences == ["Fine, thank you."]
    assert first.speaking == second.speaking == 0


async def test_the_turn_tells_who_answered(autojump_clock, talk, log_lines) -> None:
    def pair(first: Engine, second: Engine, protocol: type) -> FallbackChain[Any]:
        kind = protocol.__name__
        return chain(
            under_name(f"first {kind}", first, protocol),
            under_name(f"second {kind}", second, protocol),
        )

    hears = pair(ScriptedRecognizer(DOWN), ScriptedRecognizer("Hello?"), SpeechRecognizer)
    thinks = pair(ScriptedLanguageModel([DOWN]), ScriptedLanguageModel(["Hi."]), LanguageModel)
    speaks = pair(
        ScriptedSynthesizer(fails=lambda _: DOWN), ScriptedSynthesizer(), SpeechSynthesizer
    )
    t = await talk(
        asr=FallbackRecognizer(hears),
        llm=FallbackLanguageModel(thinks),
        tts=FallbackSynthesizer(speaks),
    )
    await ask(t)
    await trio.testing.wait_all_tasks_blocked()
    [turn] = log_lines("turn over")
    assert turn["asr"] == "second SpeechRecognizer"
    assert turn["llm"] == "second LanguageModel"
    assert turn["tts"] == "second SpeechSynthesizer"


class Mute(ScriptedSynthesizer):
    """Ends without a sound, and without an error."""

    async def _chunks(self, sentence: str) -> AsyncGenerator[PcmChunk, None]:
        await trio.lowlevel.checkpoint()
        for never in ():
            yield never


async def test_a_voice_without_a_sound_is_no_voice(autojump_clock, talk) -> None:
    second = ScriptedSynthesizer(sample_rate=16_000)
    t = await talk(tts=FallbackSynthesizer(chain(Mute(), second)))
    assert await ask(t) < 1
    assert second.sentences == ["Fine, thank you."]


async def test_nobody_waits_for_forty_sentences_without_a_sound(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["Wait. "] * 40), tts=Mute())
    await t.device.hello()
    await t.device.detect("how are you")
    await t.device.wait_for("tts stop")
    assert len(t.tts.sentences) == 2
    assert "alert" in t.device.kinds


class _FailsToClose:
    """Does well, and raises what no engine may raise when its stream is left."""

    @asynccontextmanager
    async def _left(self, block: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
        async with block as stream:
            yield stream
        raise ValueError("cannot close")


class ModelFailsToClose(ScriptedLanguageModel, _FailsToClose):
    def reply(self, *args: Any) -> AbstractAsyncContextManager[Any]:
        return self._left(super().reply(*args))


class VoiceFailsToClose(ScriptedSynthesizer, _FailsToClose):
    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[Any]:
        return self._left(super().synthesize(sentence))


class RecognizerFailsToClose(ScriptedStreamingRecognizer, _FailsToClose):
    def open_stream(self) -> AbstractAsyncContextManager[Any]:
        return self._left(super().open_stream())


@pytest.mark.parametrize(
    "engines",
    [
        {"llm": FallbackLanguageModel(chain(ModelFailsToClose()))},
        {"tts": FallbackSynthesizer(chain(VoiceFailsToClose()))},
        {"asr": RecognizerFailsToClose("What time is it?")},
    ],
    ids=["llm", "tts", "asr"],
)
async def test_an_engine_that_fails_to_close_ends_no_session(
    autojump_clock, talk, engines: dict[str, Any]
) -> None:
    t = await talk(**engines)
    await ask(t)
    await t.device.detect("are you there?")
    await t.device.wait_for("tts stop", count=2)
    assert t.closing is None


async def test_where_all_fail_the_device_is_told_and_the_session_goes_on(
    autojump_clock, talk
) -> None:
    model = FallbackLanguageModel(
        chain(ScriptedLanguageModel([DOWN]), ScriptedLanguageModel([BUG], ["Here again."]))
    )
    t = await talk(llm=model)
    await ask(t)
    # The apology is speech too.
    assert len(t.tts.sentences) == 1
    await t.device.detect("are you there?")
    await t.device.wait_for("tts stop", count=2)
    assert t.tts.sentences[1:] == ["Here again."]
    assert t.closing is None


@pytest.mark.parametrize("tenths", range(0, 60, 3))
async def test_an_abort_at_any_time_ends_both(autojump_clock, talk, tenths: int) -> None:
    first = ScriptedLanguageModel(["never"], first_seconds=FOREVER)
    second = ScriptedLanguageModel(
        ["The second ", "answers. ", "Slowly."], first_seconds=0.5, piece_seconds=0.3
    )
    t = await talk(llm=FallbackLanguageModel(chain(first, second)))
    await t.device.hello()
    await t.device.detect("hello?")
    await trio.sleep(tenths / 10)
    await t.device.abort()
    await trio.sleep(1)
    kinds = t.device.kinds
    assert kinds.count("tts start") <= 1
    assert kinds.count("tts stop") >= 1
    assert kinds[-1] == "tts stop"
    assert first.generating == second.generating == 0


class BrokenDetector(LoudnessDetector):
    """Raises one error at one of its steps, as often as told."""

    def __init__(self, step: str, error: Exception, *, times: int) -> None:
        super().__init__()
        self.error = error
        self.left = {step: times}

    def fail(self, step: str) -> None:
        if self.left.get(step):
            self.left[step] -= 1
            raise self.error

    def open_stream(self) -> LoudnessStream:
        self.fail("open")
        return BrokenDetection(self)


class BrokenDetection(LoudnessStream):
    def __init__(self, detector: BrokenDetector) -> None:
        super().__init__(500)
        self._detector = detector

    @property
    def window_samples(self) -> int:
        self._detector.fail("measure")
        return super().window_samples

    async def accept(self, pcm: bytes) -> Sequence[float]:
        self._detector.fail("accept")
        return await super().accept(pcm)

    def reset(self) -> None:
        self._detector.fail("reset")
        super().reset()


@pytest.mark.parametrize("error", [DOWN, BUG])
@pytest.mark.parametrize("step", ["open", "measure", "accept", "reset"])
async def test_a_detector_that_fails_ends_no_session(
    autojump_clock, talk, log_lines, step: str, error: Exception
) -> None:
    t = await talk(vad=BrokenDetector(step, error, times=3))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.silence(0.3)
    await t.device.listen("auto")
    await t.device.listen("auto")
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert len(log_lines("voice detection failed")) == 1


async def test_a_button_is_served_where_no_voice_can_be_detected(
    autojump_clock, talk, log_lines
) -> None:
    t = await talk(vad=BrokenDetector("open", BUG, times=1000))
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    assert t.device.of_kind("stt")
    assert len(log_lines("voice detection failed")) == 1


@attrs.frozen
class Undecided:
    """An end-of-turn strategy with a bug."""

    silence: Any

    async def silence_ms(self, pause: Pause) -> Any:
        await trio.lowlevel.checkpoint()
        if isinstance(self.silence, Exception):
            raise self.silence
        return self.silence


@pytest.mark.parametrize("silence", [BUG, None, "long"])
async def test_a_strategy_that_fails_leaves_the_end_to_the_silence(
    autojump_clock, talk, log_lines, silence: Any
) -> None:
    t = await talk(end_of_turn=Undecided(silence))
    await ask(t)
    assert log_lines("end of turn undecided")
