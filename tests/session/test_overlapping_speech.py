"""Utterances that follow each other faster than they are understood, and replies in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Talk = Callable[..., Awaitable[Any]]

POEM = "春眠不觉晓处处闻啼鸟。夜来风雨声花落知多少。白日依山尽黄河入海流。"
"""A character is a packet of 60 ms."""


def settings(**listening: Any) -> Settings:
    return Settings(listening=ListeningSettings(end_of_turn="silence", **listening))


async def poem(talk: Talk, *, packets: int, **more: Any) -> Any:
    """A device that leaves its echo to the server, and hears a poem."""
    more.setdefault("settings", settings())
    t = await talk(**more)
    await t.device.hello(features={"mcp": False, "aec": True})
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=packets)
    return t


def stalled(t: Any) -> trio.Event:
    """From now on the device gets nothing until this is set."""
    flows, take = trio.Event(), t.session.outbox.next_payload

    async def next_payload() -> str | bytes:
        await flows.wait()
        payload: str | bytes = await take()
        return payload

    t.session.outbox.next_payload = next_payload
    return flows


def last_words(t: Any) -> str:
    content: str = t.session._conversation._tools.history.dialogue("")[-1].content
    return content


@pytest.mark.parametrize("mode", ["auto", "realtime"])
async def test_endless_speech_is_answered_piece_by_piece(autojump_clock, talk, mode) -> None:
    t = await talk(asr=ScriptedRecognizer("很长的一句话", seconds=0.5))
    await t.device.hello()
    await t.device.listen(mode)
    for _ in range(100):
        await t.device.speak(0.54)
        await t.device.silence(0.12)
    assert t.device.of_kind("stt")
    assert len([heard for heard in t.asr.heard_ms if heard >= 30_000]) <= 2


async def test_voice_interrupts_what_waits_for_a_slow_network(autojump_clock, talk) -> None:
    t = await talk(
        asr=ScriptedRecognizer("别念了说点别的"),
        settings=settings(),
        llm=ScriptedLanguageModel(
            ["你好朋友。", "天气很好。", "再见朋友。"], ["Fine."], piece_seconds=1.0
        ),
    )
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("hi")
    await t.device.wait_for("tts start")
    flows = stalled(t)
    await trio.sleep(1.9)
    await t.device.speak(0.9)
    flows.set()
    await t.device.silence(2)
    await t.device.wait_for("tts stop", count=2)
    assert t.device.of_kind("tts sentence_start")[-1].body["text"] == "Fine."


async def test_a_reply_is_heard_while_two_utterances_are_joined(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=5,
        asr=ScriptedRecognizer("嗯嗯", seconds=2.5),
        llm=ScriptedLanguageModel([POEM * 2]),
    )
    for _ in range(2):
        await t.device.speak(0.6)
        await t.device.silence(0.9)
    await t.device.wait_for("tts stop")
    assert len(t.device.of_kind("audio")) == len(POEM * 2)
    assert last_words(t) == POEM * 2


async def test_what_was_taken_back_is_recognised_with_what_follows(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=3,
        asr=ScriptedRecognizer("别念了说点别的", seconds=2.5),
        llm=ScriptedLanguageModel([POEM], ["Fine."]),
    )
    await trio.sleep(0.12)
    await t.device.speak(0.6)
    await t.device.silence(0.66)
    await t.device.speak(0.48)
    await t.device.silence(0.72)
    await trio.sleep(20)
    assert max(t.asr.heard_ms) > 1400


async def test_joined_utterances_are_no_longer_than_one_may_be(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=5,
        asr=ScriptedRecognizer("嗯嗯", seconds=4),
        settings=settings(max_utterance_seconds=2),
        llm=ScriptedLanguageModel([POEM * 8]),
    )
    for _ in range(6):
        await t.device.speak(0.9)
        await t.device.silence(0.72)
    assert 1800 <= max(t.asr.heard_ms) <= 2100


@pytest.mark.parametrize("how", ["abort", "listen"])
async def test_who_falls_silent_after_an_interruption_is_hung_up_on(
    autojump_clock, talk, how
) -> None:
    t = await talk(
        asr=ScriptedRecognizer("别念了说点别的", seconds=0.5),
        settings=settings(idle_seconds=30),
        llm=ScriptedLanguageModel([POEM], ["Fine."]),
    )
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=14)
    await t.device.speak(0.9)
    await t.device.silence(0.3)
    await trio.sleep(0.5)
    if how == "abort":
        await t.device.abort()
    else:
        await t.device.listen("auto")
    with trio.fail_after(40):
        await t.device.wait_for_hang_up()


@pytest.mark.parametrize("draft", [False, True])
async def test_what_never_left_was_not_heard(autojump_clock, talk, draft) -> None:
    t = await poem(
        talk,
        packets=5,
        asr=ScriptedRecognizer("嗯嗯", seconds=9),
        llm=ScriptedLanguageModel([POEM * 2], ["Fine."]),
    )
    if draft:
        await t.device.speak(0.6)
    else:
        await t.device.silence(0.6)
    await t.device.silence(0.9)
    flows = stalled(t)
    await trio.sleep(2)
    await t.device.abort()
    await trio.sleep(0.1)
    flows.set()
    await trio.sleep(0.5)
    assert len(last_words(t)) <= len(t.device.of_kind("audio"))
