"""One turn, interrupted at every moment and at every step of the scheduler."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)
from xiaozhi_trio.wire.closing import Closing

STEP_SECONDS = 0.03
TURN_SECONDS = 0.9
SCHEDULER_STEPS = 30
SHUTDOWN = Closing(1001, "server_shutdown")


async def abort(t) -> None:
    await t.device.abort()


async def press_the_button(t) -> None:
    await t.device.listen("manual")


async def type_something_else(t) -> None:
    await t.device.detect("something else")


async def end(t) -> None:
    t.session.end(SHUTDOWN)


async def hang_up(t) -> None:
    t.link.hang_up()


INTERRUPTIONS = [abort, press_the_button, type_something_else]
ENDINGS = [end, hang_up]


async def asking(talk, *, seconds: float):
    """A device that has just asked something by voice, of engines that take `seconds` each."""
    t = await talk(
        asr=ScriptedRecognizer("one question", seconds=seconds),
        llm=ScriptedLanguageModel(["First part. ", "Second part."], piece_seconds=seconds),
        tts=ScriptedSynthesizer(seconds=seconds, chunk_ms=60, tone=Tone(ms_per_character=20)),
    )
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(0.3, burst=True)
    await t.device.stop_listening()
    return t


async def at_moment(talk, interrupt, check, moment: float) -> None:
    t = await asking(talk, seconds=0.1)
    await trio.sleep(moment)
    await interrupt(t)
    await check(t)


async def at_scheduler_step(talk, interrupt, check, step: int) -> None:
    t = await asking(talk, seconds=0.0)
    for _ in range(step):
        await trio.lowlevel.checkpoint()
    await interrupt(t)
    await check(t)


async def is_usable(t) -> None:
    """The interrupted turn is over, and the next one is as if it had never been."""
    await trio.sleep(10)
    seen = len(t.device.events)
    await t.device.detect("another question")
    await t.device.wait_until(lambda: t.device.events[-1].kind == "tts stop")
    await trio.sleep(10)
    assert_paired(t)
    new = [event.kind for event in t.device.events[seen:] if event.kind != "audio"]
    sentences = ["tts sentence_start"] * 2
    assert new == ["stt", "tts start", "llm", *sentences, "tts stop"]
    roles = [message.role for message in t.llm.dialogues[-1][1:]]
    assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
    assert roles[-1] == "user"


async def is_over(t) -> None:
    await t.device.wait_for_hang_up()
    assert_paired(t)
    assert t.closing.reason in {"server_shutdown", "peer_gone"}


def assert_paired(t) -> None:
    kinds = t.device.kinds
    speaking = False
    for kind in kinds:
        if kind == "tts start":
            assert not speaking, kinds
            speaking = True
        elif kind == "tts stop":
            speaking = False
        elif kind in {"audio", "tts sentence_start"}:
            assert speaking, kinds
    assert not speaking, kinds
    assert (t.llm.generating, t.tts.speaking) == (0, 0)


EVERY_END = [
    *[pytest.param(action, is_usable, id=action.__name__) for action in INTERRUPTIONS],
    *[pytest.param(action, is_over, id=action.__name__) for action in ENDINGS],
]


@pytest.mark.parametrize(("interrupt", "check"), EVERY_END)
async def test_at_every_moment(autojump_clock, nursery, talk, interrupt, check) -> None:
    with trio.fail_after(100):
        async with trio.open_nursery() as talks:
            for number in range(round(TURN_SECONDS / STEP_SECONDS)):
                moment = number * STEP_SECONDS
                talks.start_soon(at_moment, talk, interrupt, check, moment)


@pytest.mark.parametrize(("interrupt", "check"), EVERY_END)
async def test_at_every_scheduler_step(autojump_clock, nursery, talk, interrupt, check) -> None:
    for step in range(SCHEDULER_STEPS):
        with trio.fail_after(100):
            await at_scheduler_step(talk, interrupt, check, step)
