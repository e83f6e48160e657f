"""A device that hears itself stutters once; one that does not is interrupted by a voice."""

from __future__ import annotations

import pytest

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.session.echo_trust import PROBATION_MS, EchoTrust
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer

FIRST, SECOND, THIRD = "春眠不觉晓处处闻啼鸟。", "夜来风雨声花落知多少。", "白日依山尽黄河入海流。"
STOP = "别念了说点别的"


def doubted(*, cancels: bool = True) -> EchoTrust:
    trust = EchoTrust(cancels=cancels)
    trust.fell_silent_for_nothing()
    return trust


def listen(trust: EchoTrust, start: int, end: int, *, we_speak=True, voice=False) -> None:
    for at in range(start, end + 1, 60):
        trust.listens(at, we_speak=we_speak, voice=voice)


def test_who_was_never_silenced_for_nothing_is_trusted() -> None:
    trust = EchoTrust(cancels=True)
    listen(trust, 0, 600, voice=True)
    assert not trust.is_doubted


def test_so_much_speech_of_ours_that_it_does_not_hear_acquits() -> None:
    trust = doubted()
    listen(trust, 0, PROBATION_MS - 60)
    assert trust.is_doubted
    listen(trust, PROBATION_MS - 60, PROBATION_MS + 60)
    assert not trust.is_doubted
    assert trust.cancels


def test_it_may_be_the_speech_of_several_replies() -> None:
    trust = doubted()
    for begin in range(0, 3 * PROBATION_MS, PROBATION_MS):
        listen(trust, begin, begin + PROBATION_MS // 2 - 60)
        listen(trust, begin + PROBATION_MS // 2, begin + PROBATION_MS - 60, we_speak=False)
    assert not trust.is_doubted


def test_silence_while_nobody_speaks_acquits_nobody() -> None:
    trust = doubted()
    listen(trust, 0, 3 * PROBATION_MS, we_speak=False)
    assert trust.is_doubted


def test_voice_begins_the_probation_anew() -> None:
    trust = doubted()
    listen(trust, 0, PROBATION_MS - 600)
    listen(trust, PROBATION_MS - 600, PROBATION_MS, voice=True)
    listen(trust, PROBATION_MS, PROBATION_MS + 3000)
    assert trust.is_doubted


def test_our_own_words_settle_it() -> None:
    trust = EchoTrust(cancels=True)
    trust.heard_us()
    listen(trust, 0, 2 * PROBATION_MS)
    assert not trust.cancels


async def poem(talk, *heard: str, reply=(FIRST, SECOND, THIRD), then=()):
    """A device in realtime mode that is told poems of 2 s a piece."""
    t = await talk(
        asr=ScriptedRecognizer(*heard),
        llm=ScriptedLanguageModel(list(reply), *then),
        settings=Settings(listening=ListeningSettings(end_of_turn="silence")),
    )
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=3)
    return t


async def hear_itself(t, *, beyond: int) -> None:
    """Voice whenever we speak, up to so many `tts stop`."""
    while len(t.device.of_kind("tts stop")) < beyond:
        starts, stops = t.device.of_kind("tts start"), t.device.of_kind("tts stop")
        speaking = len(starts) > len(stops)
        await (t.device.speak(0.12) if speaking else t.device.silence(0.12))


@pytest.mark.parametrize("echo", ["", "不觉晓处处闻", "谢谢观看"])
async def test_it_stutters_once_a_session(autojump_clock, talk, echo) -> None:
    """Whatever the recogniser makes of our own voice."""
    t = await poem(talk, echo)
    await hear_itself(t, beyond=2)
    await t.device.silence(3.0)
    await t.device.detect("again")
    await hear_itself(t, beyond=3)
    await t.device.silence(3.0)
    assert len(t.device.of_kind("tts start")) == 3
    shown = [event.body["text"] for event in t.device.of_kind("tts sentence_start")]
    assert shown == [FIRST, *[FIRST, SECOND, THIRD] * 2]
    assert len(t.llm.dialogues) == 2


async def test_after_a_cough_other_words_still_interrupt(autojump_clock, talk) -> None:
    t = await poem(talk, "", STOP, then=[["Fine."]])
    await t.device.speak(0.6)
    await t.device.silence(0.9)
    assert len(t.device.of_kind("tts start")) == 2
    await t.device.speak(0.6)
    assert len(t.device.of_kind("tts stop")) == 1
    await t.device.silence(1.2)
    assert [event.body["text"] for event in t.device.of_kind("stt")] == ["a poem", STOP]
    await t.device.wait_for("tts stop", count=3)
    assert t.llm.dialogues[-1][-1].content == STOP


async def test_a_cough_is_forgotten_once_a_reply_was_not_heard(autojump_clock, talk) -> None:
    t = await poem(talk, "", STOP, reply=[FIRST, SECOND, THIRD] * 6, then=[["Fine."]])
    await t.device.speak(0.6)
    await t.device.silence(0.9)
    await t.device.silence(6.0)
    assert len(t.device.of_kind("tts stop")) == 1
    await t.device.speak(0.24)
    assert len(t.device.of_kind("tts stop")) == 2


async def test_a_sign_of_listening_raises_no_doubt(autojump_clock, talk) -> None:
    t = await poem(talk, "嗯嗯")
    for stops in (1, 2):
        await t.device.speak(0.6)
        assert len(t.device.of_kind("tts stop")) == stops
        await t.device.silence(0.9)
