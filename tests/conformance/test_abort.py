"""Conformance 76 to 81: abort and interruption."""

from __future__ import annotations

from contextlib import aclosing

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

STORY = ["It was a dark and stormy night. "] * 40


async def speaking(talk, **more):
    t = await talk(llm=ScriptedLanguageModel(STORY, ["A short reply."]), **more)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.detect("tell me a story")
    await t.device.wait_for("audio", count=20)
    return t


async def test_076_abort_silences_at_once(autojump_clock, talk) -> None:
    t = await speaking(talk)
    began = trio.current_time()
    await t.device.abort()
    stop = await t.device.wait_for("tts stop")
    assert stop.at - began < 0.020
    sent = len(t.device.of_kind("audio"))
    await trio.sleep(5)
    assert len(t.device.of_kind("audio")) == sent
    assert len(t.device.of_kind("tts stop")) == 1
    assert (t.llm.generating, t.tts.speaking) == (0, 0)


async def test_077_abort_while_nothing_is_spoken(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.abort()
    await t.device.wait_for("tts stop")
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop", count=2)
    assert t.device.kinds[:2] == ["hello", "tts stop"]


@pytest.mark.parametrize(
    "stage",
    [
        {"asr": ScriptedRecognizer("hi", seconds=2)},
        {"llm": ScriptedLanguageModel(["Hi."], first_seconds=2)},
        {"tts": ScriptedSynthesizer(seconds=2)},
    ],
    ids=["recognising", "thinking", "synthesising"],
)
async def test_077_abort_before_the_first_word(autojump_clock, talk, stage) -> None:
    t = await talk(**stage)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await trio.sleep(1)
    await t.device.abort()
    await t.device.wait_for("tts stop")
    await trio.sleep(10)
    assert not t.device.of_kind("audio")
    assert len(t.device.of_kind("tts stop")) == 1
    assert len(t.device.of_kind("tts start")) <= 1
    assert t.device.kinds[-1] == "tts stop"


@pytest.mark.parametrize("reason", ["wake_word_detected", "", None, "something new", "x" * 5000])
async def test_078_every_reason_silences(autojump_clock, talk, reason) -> None:
    t = await speaking(talk)
    await t.device.abort(reason)
    await t.device.wait_for("tts stop")


async def test_079_abort_and_listen_start_make_a_clean_new_turn(autojump_clock, talk) -> None:
    t = await speaking(talk)
    await t.device.abort("wake_word_detected")
    await t.device.listen("auto")
    await wait_all_tasks_blocked()
    seen = len(t.device.events)
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop", count=2)
    new = [event.kind for event in t.device.events[seen:] if event.kind != "audio"]
    assert new == ["stt", "tts start", "llm", "tts sentence_start", "tts stop"]
    (_, sentence) = (
        t.device.of_kind("tts sentence_start")[0],
        t.device.of_kind("tts sentence_start")[-1],
    )
    assert sentence.body["text"] == "A short reply."


async def test_079_a_late_answer_of_the_old_turn_is_never_heard(autojump_clock, talk) -> None:
    t = await talk(
        asr=ScriptedRecognizer("old question", "new question", seconds=1),
        llm=ScriptedLanguageModel(["Reply."], first_seconds=1),
    )
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await trio.sleep(0.9)
    await t.device.abort()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop", count=2)
    assert [event.body["text"] for event in t.device.of_kind("stt")] == ["new question"]
    assert len(t.device.of_kind("tts start")) == 1


async def test_080_two_aborts_in_a_row(autojump_clock, talk) -> None:
    t = await speaking(talk)
    await t.device.abort()
    await t.device.abort()
    await t.device.wait_for("tts stop", count=2)
    await trio.sleep(5)
    assert t.device.kinds[-1] == "tts stop"
    assert len(t.device.of_kind("tts start")) == 1


@pytest.mark.parametrize("before_end_ms", [-70, -1, 0, 1, 59, 60, 61, 119, 121, 300, 301])
async def test_080_abort_racing_with_the_natural_end(autojump_clock, talk, before_end_ms) -> None:
    probe = await talk()
    await probe.device.hello()
    began = trio.current_time()
    await probe.device.detect("hello?")
    length = (await probe.device.wait_for("tts stop")).at - began
    t = await talk()
    await t.device.hello()
    await t.device.detect("hello?")
    await trio.sleep(length - before_end_ms / 1000)
    await t.device.abort()
    await trio.sleep(1)
    kinds = t.device.kinds
    assert kinds.count("tts start") == 1
    assert kinds[-1] == "tts stop"
    assert kinds.index("tts stop") > kinds.index("audio")
    assert 1 <= kinds.count("tts stop") <= 2
    await t.device.detect("and again?")
    await t.device.wait_for("tts start", count=2)


async def test_081_the_history_holds_what_was_heard(autojump_clock, talk) -> None:
    sentences = ["The first sentence. ", "The second sentence. ", "The third sentence. "]
    t = await talk(llm=ScriptedLanguageModel(sentences, ["Fine."]))
    await t.device.hello()
    await t.device.detect("talk to me")
    second = (await t.device.wait_for("tts sentence_start", count=2)).at
    # The loudspeaker is 300 ms behind the network.
    await trio.sleep(second + 0.300 + 0.060 * len("The second") + 0.030 - trio.current_time())
    await t.device.abort()
    await t.device.detect("what did you say?")
    await t.device.wait_for("tts stop", count=2)
    dialogue = t.llm.dialogues[1]
    assert [message.role for message in dialogue] == ["system", "user", "assistant", "user"]
    assert dialogue[2].content == "The first sentence. The second"


async def test_081_an_unheard_reply_leaves_nothing(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["Never heard."], ["Fine."], first_seconds=1))
    await t.device.hello()
    await t.device.detect("one")
    await trio.sleep(0.5)
    await t.device.detect("two")
    await t.device.wait_for("tts stop", count=2)
    assert [message.content for message in t.llm.dialogues[1][1:]] == ["one\ntwo"]


async def test_081_a_whole_reply_is_remembered_whole(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["我很好。", "你呢？"]))
    await t.device.hello()
    await t.device.detect("你好吗")
    await t.device.wait_for("tts stop")
    await t.device.detect("再说一遍")
    await t.device.wait_for("tts stop", count=2)
    assert t.llm.dialogues[1][2].content == "我很好。你呢？"


async def test_typed_text_interrupts(autojump_clock, talk) -> None:
    t = await speaking(talk)
    began = trio.current_time()
    await t.device.detect("stop, what is the time?")
    stop = await t.device.wait_for("tts stop")
    assert stop.at - began < 0.020
    await t.device.wait_for("tts stop", count=2)
    kinds = t.device.kinds
    assert kinds.index("tts stop") < len(kinds) - 1 - kinds[::-1].index("stt")


async def test_a_pressed_button_interrupts(autojump_clock, talk) -> None:
    t = await speaking(talk)
    await t.device.listen("manual")
    await t.device.wait_for("tts stop")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop", count=2)
    assert len(t.asr.utterances) == 1


async def test_081_what_a_stalled_network_never_took_was_not_heard(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["One two three four five six seven."], ["Fine."]))
    await t.device.hello()
    taken = t.session.outbox.next_payload

    async def stalled() -> str | bytes:
        if len(t.device.of_kind("audio")) == 11:
            await trio.sleep(60)
        return await taken()

    t.session.outbox.next_payload = stalled
    await t.device.detect("count")
    await trio.sleep(30)
    await t.device.detect("how far did you get?")
    await t.device.wait_for("tts stop", count=2)
    assert t.llm.dialogues[1][2].content == "One two"


class StreamingSynthesizer(ScriptedSynthesizer):
    """Makes a sentence as fast as it is spoken, and fails where told to."""

    def __init__(self, *, fails_after: int = 1000) -> None:
        super().__init__(chunk_ms=60)
        self._fails_after = fails_after

    async def _chunks(self, sentence: str):
        async with aclosing(super()._chunks(sentence)) as chunks:
            made = 0
            async for chunk in chunks:
                yield chunk
                await trio.sleep(0.060)
                made += 1
                if made == self._fails_after:
                    raise EngineError("gone", engine="tts", category=EngineErrorCategory.INTERNAL)


@pytest.mark.parametrize("tts", [StreamingSynthesizer(), StreamingSynthesizer(fails_after=10)])
async def test_081_a_sentence_that_is_not_made_yet_was_not_heard(autojump_clock, talk, tts) -> None:
    sentence = "The quick brown fox jumps over the lazy dog."
    t = await talk(llm=ScriptedLanguageModel([sentence], ["Fine."]), tts=tts)
    await t.device.hello()
    await t.device.detect("talk to me")
    await t.device.wait_for("audio", count=10)
    await trio.sleep(0.1)
    await t.device.abort()
    await t.device.detect("what did you say?")
    await t.device.wait_for("stt", count=2)
    await trio.sleep(0.1)
    assert t.llm.dialogues[1][2].content in {"The", "The quick"}
