"""The server's own phrases, ready to be spoken."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.config.settings import ConversationSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback import FallbackChain, FallbackSynthesizer
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.slots import EngineSlot
from xiaozhi_trio.session.phrases import ENGINE_FAILED, stock_phrases
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedSynthesizer, encode_inline
from xiaozhi_trio.wire.messages import AudioParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.engines.protocols import PcmChunk

SPEECH = AudioParams(sample_rate=24_000, frame_duration=60)


def broken() -> EngineError:
    return EngineError("out of order", engine="tts", category=EngineErrorCategory.INTERNAL)


class FailsToClose(ScriptedSynthesizer):
    """Speaks well, and raises what no engine may raise when its stream is left."""

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        async with super().synthesize(sentence) as chunks:
            yield chunks
        raise ValueError("cannot close")


async def prepare(t) -> None:
    await t.stock.prepare(stock_phrases(Settings().conversation))


async def test_a_greeting_from_stock_asks_no_engine_and_comes_at_once(autojump_clock, talk) -> None:
    t = await talk(tts=ScriptedSynthesizer(seconds=2.0))
    await t.device.hello()
    await prepare(t)
    made = list(t.tts.sentences)
    called = trio.current_time()
    await t.device.detect("你好小智")
    first = await t.device.wait_for("audio")
    assert first.at - called == pytest.approx(0.06, abs=0.001)
    await t.device.wait_for("tts stop")
    assert t.tts.sentences == made
    assert [e.body["text"] for e in t.device.of_kind("tts sentence_start")] == ["我在呢，请说。"]
    assert t.device.spoken_ms() > 300


async def test_an_apology_from_stock_is_heard_though_the_voice_is_gone(
    autojump_clock, talk
) -> None:
    gone = []
    tts = ScriptedSynthesizer(fails=lambda _: broken() if gone else None)
    t = await talk(tts=tts, llm=ScriptedLanguageModel(["It is noon. "] * 3))
    await prepare(t)
    gone.append(True)
    await t.device.hello()
    await t.device.detect("what time is it?")
    await t.device.wait_for("tts stop")
    shown = [e.body["text"] for e in t.device.of_kind("tts sentence_start")]
    assert shown == [ENGINE_FAILED.en]
    assert not t.device.of_kind("alert")
    assert t.device.kinds.count("tts stop") == 1


async def test_phrases_wait_for_an_engine_that_is_busy_or_fails(autojump_clock) -> None:
    fails = [True]
    tts = ScriptedSynthesizer(fails=lambda _: broken() if fails else None)
    tts.is_busy = True
    stock = StockSpeech(EngineSlot.of_ready(tts), encode_inline, Settings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stock.prepare, ["Hello there."])
        await trio.sleep(5)
        assert not tts.sentences
        tts.is_busy = False
        await trio.sleep(5)
        assert tts.sentences
        assert await stock.packets("Hello there.", SPEECH) == []
        fails.clear()
    packets = await stock.packets("Hello there.", SPEECH)
    assert len(packets) == 12
    assert await stock.packets("Hello there.", SPEECH) is packets


async def test_a_farewell_is_said_to_who_is_idle_where_that_is_wanted(autojump_clock, talk) -> None:
    settings = Settings(conversation=ConversationSettings(says_farewell_when_idle=True))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.wait_for_hang_up()
    assert [e.body["text"] for e in t.device.of_kind("tts sentence_start")] == ["好的，再见。"]
    assert t.device.kinds[-1] == "tts stop"
    assert t.closing.reason == "parted"


async def test_who_answers_the_farewell_stays(autojump_clock, talk) -> None:
    settings = Settings(conversation=ConversationSettings(says_farewell_when_idle=True))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.wait_for("tts sentence_start")
    await t.device.detect("wait, one more thing")
    await t.device.wait_for("tts stop", count=2)
    assert t.closing is None
    await t.device.wait_for_hang_up()


@pytest.mark.parametrize("text", ["再见。", "Good bye!"])
async def test_exit_words_end_with_a_farewell_and_a_clean_close(
    autojump_clock, talk, text: str
) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.detect(text)
    await t.device.wait_for_hang_up()
    assert not t.llm.dialogues
    assert t.device.spoken_ms() > 200
    assert t.device.kinds[-1] == "tts stop"
    assert (t.closing.code, t.closing.reason) == (1000, "parted")


async def test_an_engine_that_fails_to_close_does_not_end_the_process(autojump_clock) -> None:
    """Phrases are made in a task of the server itself."""
    policy = FallbackPolicy(first_answer_seconds=3, failures=3, pause_seconds=10)
    chain = FallbackChain([EngineSlot.of_ready(FailsToClose())], policy)
    stock = StockSpeech(EngineSlot.of_ready(FallbackSynthesizer(chain)), encode_inline, Settings())
    with trio.move_on_after(100):
        await stock.prepare(["hello there"])
        pytest.fail("was made though the engine failed")
    assert not await stock.packets("hello there", SPEECH)
