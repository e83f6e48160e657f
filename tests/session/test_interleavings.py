"""Everything that may end a reply, at every moment of one that is prepared, released,
interrupted for nothing, and resumed."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)
from xiaozhi_trio.wire.closing import Closing

STEP_SECONDS = 0.24
SCENE_SECONDS = 3.84
SHUTDOWN = Closing(1001, "server_shutdown")
IDLE_SECONDS = 20.0

FIRST, SECOND = "春眠不觉晓处处闻啼鸟。", "夜来风雨声花落知多少。"
QUESTION, AGAIN = "你会念诗吗", "别的问题"


async def abort(t) -> None:
    await t.device.abort()


async def wake_word_while_speaking(t) -> None:
    await t.device.abort("wake_word_detected")
    await t.device.listen("realtime")


async def wake_word(t) -> None:
    await t.device.detect("你好小智")
    await t.device.listen("realtime")


async def button(t) -> None:
    await t.device.listen("manual")


async def button_and_back(t) -> None:
    await t.device.listen("manual")
    await t.device.stop_listening()
    await t.device.listen("realtime")


async def listen_again(t) -> None:
    await t.device.listen("realtime")


async def listen_in_auto(t) -> None:
    await t.device.listen("auto")


async def stop_listening(t) -> None:
    await t.device.stop_listening()


async def typed(t) -> None:
    await t.device.detect("something typed")


async def abort_twice(t) -> None:
    await t.device.abort()
    await t.device.abort()


async def nothing(t) -> None:
    """The natural end alone."""


async def drain(t) -> None:
    t.session.end(SHUTDOWN)


async def hang_up(t) -> None:
    t.link.hang_up()


async def packets_stop(t) -> None:
    """See `at`."""


GO_ON = [
    abort,
    abort_twice,
    wake_word,
    wake_word_while_speaking,
    button,
    button_and_back,
    listen_again,
    listen_in_auto,
    stop_listening,
    typed,
    nothing,
    packets_stop,
]
END = [drain, hang_up]


async def scene(t, silenced: trio.CancelScope) -> None:
    """A question; a sound in the middle of its answer; and the rest of the answer."""
    with silenced, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await t.device.speak(0.6)
        await t.device.silence(1.2)
        await t.device.speak(0.3)
        await t.device.silence(1.8)


class Heard(ScriptedRecognizer):
    """The long sound is the question, the short one only says "go on"."""

    async def transcribe(self, pcm: bytes):
        transcript = await super().transcribe(pcm)
        # Every 10 ms.
        loud = sum(abs(s) > 2000 for s in memoryview(pcm).cast("h")[::160])
        return type(transcript)(QUESTION if loud > 33 else "嗯嗯")


async def begin(talk):
    t = await talk(
        asr=Heard(seconds=0.15),
        llm=ScriptedLanguageModel([FIRST, SECOND], ["Fine."], first_seconds=0.1, piece_seconds=0.2),
        tts=ScriptedSynthesizer(seconds=0.1, chunk_ms=240, tone=Tone(ms_per_character=60)),
        settings=Settings(
            listening=ListeningSettings(end_of_turn="silence", idle_seconds=IDLE_SECONDS)
        ),
    )
    await t.device.hello()
    await t.device.listen("realtime")
    return t


def assert_paired(t) -> None:
    speaking = False
    for event in t.device.events:
        if event.kind == "tts start":
            assert not speaking, t.device.kinds
            speaking = True
        elif event.kind == "tts stop":
            speaking = False
        elif event.kind in {"audio", "tts sentence_start", "llm"}:
            assert speaking, t.device.kinds
    assert not speaking, t.device.kinds
    assert (t.llm.generating, t.tts.speaking) == (0, 0)


def said(t) -> list[tuple[str, str]]:
    dialogue = t.session._conversation._tools.history.dialogue("")
    return [(message.role, message.content) for message in dialogue[1:]]


async def at(talk, action, moment: float, check) -> None:
    t = await begin(talk)
    silenced = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene, t, silenced)
        await trio.sleep(moment)
        if action is packets_stop:
            silenced.cancel()
        await action(t)
        await check(t)


async def is_usable(t) -> None:
    """What was begun is over, and the next question is as if nothing had been."""
    await trio.sleep(9)
    assert_paired(t)
    for role in ("user", "assistant"):
        texts = "".join(text for who, text in said(t) if who == role)
        for phrase in (FIRST, SECOND, QUESTION):
            assert texts.count(phrase) <= 1, said(t)
    seen = len(t.device.events)
    await t.device.detect(AGAIN)
    await t.device.wait_until(
        lambda: len(t.device.events) > seen and t.device.events[-1].kind == "tts stop"
    )
    assert_paired(t)
    new = [event.kind for event in t.device.events[seen:] if event.kind != "audio"]
    assert [kind for kind in new if kind != "tts sentence_start"] == [
        "stt",
        "tts start",
        "llm",
        "tts stop",
    ]
    roles = [message.role for message in t.llm.dialogues[-1][1:]]
    assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
    assert t.llm.dialogues[-1][-1].content.endswith(AGAIN)
    # And it is idle at some time, whatever was.
    spoke = trio.current_time()
    ended = await t.device.wait_for_hang_up()
    assert ended - spoke == pytest.approx(IDLE_SECONDS, abs=0.1)
    assert t.closing.reason == "idle"


async def is_over(t) -> None:
    await t.device.wait_for_hang_up()
    assert_paired(t)
    assert t.closing.reason in {"server_shutdown", "peer_gone"}


EVERY = [
    *[pytest.param(action, is_usable, id=action.__name__) for action in GO_ON],
    *[pytest.param(action, is_over, id=action.__name__) for action in END],
]


@pytest.mark.parametrize(("action", "check"), EVERY)
async def test_at_every_moment(autojump_clock, talk, action, check) -> None:
    # Each action has steps of its own, so that together they are fine.
    shift = [each.values[0] for each in EVERY].index(action) / len(EVERY) * STEP_SECONDS
    with trio.fail_after(100):
        async with trio.open_nursery() as talks:
            for number in range(round(SCENE_SECONDS / STEP_SECONDS)):
                moment = number * STEP_SECONDS + shift
                talks.start_soon(at, talk, action, moment, check)


async def test_what_the_scene_is_made_of(autojump_clock, talk) -> None:
    t = await begin(talk)
    await scene(t, trio.CancelScope())
    await t.device.wait_for("tts stop", count=2)
    assert t.device.kinds.count("stt") == 1
    assert said(t) == [("user", QUESTION), ("assistant", FIRST + SECOND)]
    assert len(t.llm.dialogues) == 1
