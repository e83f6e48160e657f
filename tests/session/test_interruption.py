"""Traces and metrics tell why a reply fell silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.session.interruption import Interruption
from xiaozhi_trio.telemetry.turn_trace import Moment
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POEM = ["春眠不觉晓处处闻啼鸟。", "夜来风雨声花落知多少。"]
OVER_A_LOUDSPEAKER = {"mcp": False, "aec": True}
"""Of a device that leaves the cancellation of echo to us, and has not got it yet."""


async def speak(device: Any) -> None:
    await device.speak(0.9)
    await device.silence(1)


async def press(device: Any) -> None:
    await device.listen("manual")


async def abort(device: Any) -> None:
    await device.abort()


async def be_called(device: Any) -> None:
    await device.abort("wake_word_detected")
    await device.detect("你好小智")


async def be_called_without_abort(device: Any) -> None:
    await device.detect("你好小智")


async def type_text(device: Any) -> None:
    await device.detect("something else")


@pytest.mark.parametrize(
    ("silence", "features", "reason"),
    [
        (speak, {}, Interruption.BARGE_IN),
        (speak, OVER_A_LOUDSPEAKER, Interruption.SPEECH),
        (press, {}, Interruption.BUTTON),
        (abort, {}, Interruption.ABORT),
        (be_called, {}, Interruption.WAKE_WORD),
        (be_called_without_abort, {}, Interruption.WAKE_WORD),
        (type_text, {}, Interruption.TYPED),
    ],
)
async def test_the_trace_tells_what_silenced_the_reply(
    autojump_clock,
    talk,
    silence: Callable[[Any], Awaitable[None]],
    features: dict[str, bool],
    reason: Interruption,
) -> None:
    t = await talk(
        asr=ScriptedRecognizer("别念了说点别的"),
        llm=ScriptedLanguageModel(POEM, ["Fine."]),
        settings=Settings(listening=ListeningSettings(end_of_turn="silence")),
    )
    await t.device.hello(features=features)
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=5)
    await silence(t.device)
    await t.device.wait_for("tts stop")
    poem, *_ = t.session._services.traces.turns(last=10)
    reasons = [mark.reason for mark in poem.trace.marks if mark.moment is Moment.INTERRUPTED]
    assert reasons == [reason.value]


async def test_a_reply_that_is_heard_to_its_end_was_not_silenced(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.detect("hello")
    await t.device.wait_for("tts stop")
    await t.device.abort()
    await t.device.wait_for("tts stop", count=2)
    [turn] = t.session._services.traces.turns(last=10)
    assert all(mark.moment is not Moment.INTERRUPTED for mark in turn.trace.marks)
