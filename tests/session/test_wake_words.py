"""A question in the same breath with the wake word: what is left of it, and what stays whole."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ConversationSettings, ListeningSettings, Settings
from xiaozhi_trio.engines.protocols import LISTENING_RATE, Transcript
from xiaozhi_trio.session.wake_words import WakeWords
from xiaozhi_trio.testing import ScriptedRecognizer, ScriptedStreamingRecognizer, tone_speech

WORDS = WakeWords(ConversationSettings())


@pytest.mark.parametrize(
    ("called", "text", "left"),
    [
        ("你好小智", "你好小智，现在几点了？", "现在几点了？"),
        ("你好小智", "好小智现在几点了", "现在几点了"),
        ("你好小智", "小智，几点了", "几点了"),
        ("你好，小智。", "，小智。 几点了", "几点了"),
        ("你好小智", "小志，几点了", "几点了"),
        ("你好小智", "你好小智", ""),
        ("你好小智", "小智。", ""),
        ("小龙小龙", "小龙小龙放首歌", "放首歌"),
        ("嘿，你好呀", "你好呀，你是谁？", "你是谁？"),
        ("Hi Xiaozhi", "Hi, Xiaozhi, what's the time?", "what's the time?"),
        ("hi xiaozhi", "Xiao Zhi what's the time?", "what's the time?"),
        ("hi esp", "ESP: lights on", "lights on"),
        ("hi esp", "E.S.P. 开灯", "开灯"),
    ],
)
def test_the_wake_word_or_its_end_is_taken_off(called: str, text: str, left: str) -> None:
    assert WORDS.taken_off(called, text) == left


@pytest.mark.parametrize(
    ("called", "text"),
    [
        ("你好小智", "志，几点了"),
        ("你好小智", "智能灯打开"),
        ("你好小智", "你好，几点了"),
        ("你好小智", "几点了，小智"),
        ("你好小智", "小爱几点了"),
        ("你好小智", ""),
        ("hi xiaozhi", "hi, what's the time?"),
        ("hi esp", "Especially the lights"),
        ("hi esp", "p, lights on"),
        ("", "小智几点了"),
        ("！", "小智几点了"),
    ],
)
def test_what_may_be_the_question_stays(called: str, text: str) -> None:
    assert WORDS.taken_off(called, text) == text


class Understanding(ScriptedRecognizer):
    """Hears tone speech."""

    async def transcribe(self, pcm: bytes) -> Transcript:
        await super().transcribe(pcm)
        return Transcript(tone_speech.transcript(pcm))


async def called(talk, mode: str, *, greeting: str = "", asr=None):
    """A device that was called, and its microphone is open."""
    t = await talk(
        asr=asr or Understanding(),
        settings=Settings(
            listening=ListeningSettings(end_of_turn="silence"),
            conversation=ConversationSettings(greeting_zh=greeting),
        ),
    )
    await t.device.hello()
    await stream(t, speech("你好小智"), burst=True)
    await t.device.detect("你好小智")
    await t.device.listen(mode)
    return t


def speech(text: str) -> bytes:
    return tone_speech.speech(text, LISTENING_RATE)


async def stream(t, pcm: bytes, *, burst: bool = False) -> None:
    size = LISTENING_RATE * 60 // 1000 * 2
    for start in range(0, len(pcm), size):
        packet = t.device._encoder.encode(pcm[start : start + size].ljust(size, b"\0"))
        await t.device.send_packet(packet)
        await trio.sleep(0 if burst else 0.06)


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_the_question_alone_is_shown_and_answered(autojump_clock, talk, mode) -> None:
    t = await called(talk, mode)
    await stream(t, speech("，几点了？"))
    await t.device.silence(1.0)
    stt = await t.device.wait_for("stt")
    assert tone_speech.transcript(t.asr.utterances[-1]).startswith("小智")
    assert stt.body["text"] == "几点了？"
    assert t.llm.dialogues[-1][-1].content == "几点了？"


async def test_so_it_is_with_a_recogniser_that_follows_the_speech(autojump_clock, talk) -> None:
    t = await called(talk, "auto", asr=ScriptedStreamingRecognizer("小智，几点了？"))
    await stream(t, speech("几点了？"))
    await t.device.silence(1.0)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "几点了？"


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_what_is_said_after_a_pause_is_the_users_own(autojump_clock, talk, mode) -> None:
    t = await called(talk, mode)
    await t.device.silence(0.6)
    await stream(t, speech("小智是谁？"))
    await t.device.silence(1.0)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "小智是谁？"


async def test_who_goes_on_speaking_is_heard_without_it_too(autojump_clock, talk) -> None:
    t = await called(talk, "auto", asr=Understanding(seconds=1.0))
    await stream(t, speech("几点"))
    await t.device.silence(0.72)
    await stream(t, speech("了？"))
    await t.device.silence(1.5)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "几点了？"


@pytest.mark.parametrize("greeting", ["", "我在呢，请说。"])
async def test_nothing_but_the_end_of_it_is_not_answered(autojump_clock, talk, greeting) -> None:
    t = await called(talk, "realtime", greeting=greeting, asr=ScriptedRecognizer("小智"))
    await t.device.speak(0.3)
    await t.device.silence(3.0)
    assert not t.llm.dialogues
    assert [event.body["text"] for event in t.device.of_kind("stt")] == ["你好小智"] * bool(
        greeting
    )


async def test_a_question_over_the_greeting_ends_it(autojump_clock, talk) -> None:
    t = await called(talk, "realtime", greeting="我在呢，请说。")
    await stream(t, speech("几点了？"))
    await t.device.silence(1.5)
    stt = await t.device.wait_for("stt", count=2)
    assert stt.body["text"] == "几点了？"
