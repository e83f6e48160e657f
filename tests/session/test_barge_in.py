"""Interruptions that are meant: silence at once, and a history of exactly what was heard."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer, ScriptedSynthesizer
from xiaozhi_trio.wire.closing import Closing

FIRST, SECOND = "春眠不觉晓处处闻啼鸟。", "夜来风雨声花落知多少。"
POEM = FIRST + SECOND
"""A character is a packet of 60 ms."""

STOP = "别念了说点别的"
WINDOW = 0.032


async def poem(talk, *, packets: int, frame_ms: int = 60, barge_in_ms: int = 120, **more):
    """A device that hears a poem, and has got so many packets of it."""
    engines = {
        "asr": ScriptedRecognizer(STOP),
        "llm": ScriptedLanguageModel([FIRST, SECOND], ["Fine."]),
        "settings": Settings(
            listening=ListeningSettings(end_of_turn="silence", barge_in_ms=barge_in_ms)
        ),
    }
    t = await talk(**{**engines, **more}, frame_ms=frame_ms)
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=packets)
    return t


def said(t) -> list[tuple[str, str]]:
    dialogue = t.session._conversation._tools.history.dialogue("")
    return [(message.role, message.content) for message in dialogue[1:]]


def packets_before_stop(t) -> int:
    kinds = [event.kind for event in t.device.events]
    return kinds[: kinds.index("tts stop")].count("audio")


@pytest.mark.parametrize(("frame_ms", "barge_in_ms"), [(20, 120), (60, 120), (20, 320)])
async def test_so_much_voice_interrupts(autojump_clock, talk, frame_ms, barge_in_ms) -> None:
    t = await poem(
        talk,
        packets=20,
        frame_ms=frame_ms,
        barge_in_ms=barge_in_ms,
        llm=ScriptedLanguageModel([POEM * 5]),
    )
    # The detector takes whole windows, the device sends whole packets.
    began = trio.current_time()
    await t.device.speak(0.9)
    (stop,) = t.device.of_kind("tts stop")
    took = stop.at - began
    assert barge_in_ms / 1000 - WINDOW <= took <= barge_in_ms / 1000 + WINDOW + frame_ms / 1000


async def test_less_voice_does_not_interrupt(autojump_clock, talk) -> None:
    t = await poem(talk, packets=5, frame_ms=20, llm=ScriptedLanguageModel([POEM * 5]))
    for _ in range(3):
        await t.device.speak(0.06)
        await t.device.silence(0.5)
    assert not t.device.of_kind("tts stop")


async def test_silence_comes_with_the_packet_that_decides(autojump_clock, talk) -> None:
    """And nothing of the old reply after it, whatever waits in the outbox."""
    t = await poem(talk, packets=14)
    await t.device.speak(0.12)
    before = len(t.device.events)
    sent = trio.current_time()
    await t.device.speak(0.06)
    (stop,) = t.device.of_kind("tts stop")
    assert stop.at == sent
    await t.device.speak(0.6)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop", count=2)
    later = [event.kind for event in t.device.events[before:]]
    assert later[: later.index("tts stop") + 2].count("audio") <= 1
    assert later[later.index("tts stop") + 1 :][:3] == ["stt", "tts start", "llm"]


async def test_a_peer_that_reads_slowly_gets_nothing_after_the_stop(autojump_clock, talk) -> None:
    t = await poem(talk, packets=4)
    next_payload = t.session.outbox.next_payload

    async def slow():
        await trio.sleep(0.1)
        return await next_payload()

    t.session.outbox.next_payload = slow
    await trio.sleep(0.7)
    await t.device.speak(0.12)
    heard = len(t.device.of_kind("audio"))
    await t.device.speak(0.06)
    await trio.sleep(1.0)
    assert len(t.device.of_kind("audio")) <= heard + 1
    assert t.device.kinds[-1] == "tts stop"


@pytest.mark.parametrize("packets", [1, 5, 10, 11, 12, 18])
async def test_the_history_holds_what_was_heard(autojump_clock, talk, packets) -> None:
    """The device plays on what it holds, so that is what it got."""
    t = await poem(talk, packets=packets)
    await t.device.speak(0.9)
    await t.device.silence(1.5)
    await t.device.wait_for("tts stop", count=2)
    count = packets_before_stop(t)
    assert packets < count < 22
    assert said(t) == [
        ("user", "a poem"),
        ("assistant", POEM[:count]),
        ("user", STOP),
        ("assistant", "Fine."),
    ]
    # The model is told the same.
    assert [message.content for message in t.llm.dialogues[-1][1:]] == [
        "a poem",
        POEM[:count],
        STOP,
    ]


async def test_the_history_of_an_abort_by_wake_word_is_without_what_the_device_held(
    autojump_clock, talk
) -> None:
    t = await poem(talk, packets=8)
    await trio.sleep(0.03)
    count = len(t.device.of_kind("audio"))
    await t.device.abort("wake_word_detected")
    await t.device.wait_for("tts stop")
    heard = said(t)[1][1]
    # 300 ms are ahead of the loudspeaker.
    assert heard == POEM[: count - 5]


@pytest.mark.parametrize("packets", [1, 14])
async def test_the_history_of_an_abort_by_button_is_all_that_was_sent(
    autojump_clock, talk, packets
) -> None:
    t = await poem(talk, packets=packets)
    await trio.sleep(0.03)
    await t.device.abort()
    await t.device.wait_for("tts stop")
    assert said(t)[1] == ("assistant", POEM[: len(t.device.of_kind("audio"))])


async def test_an_interruption_while_the_reply_is_still_written(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=4,
        llm=ScriptedLanguageModel([FIRST, *[SECOND] * 50], ["Fine."], piece_seconds=0.6),
        tts=ScriptedSynthesizer(seconds=0.2, chunk_ms=120),
    )
    await t.device.speak(0.9)
    await t.device.silence(0.8)
    await t.device.wait_for("tts stop", count=2)
    assert (t.llm.generating, t.tts.speaking) == (0, 0)
    assert said(t)[1] == ("assistant", FIRST[: packets_before_stop(t)])


async def test_an_interruption_during_the_wait_for_the_last_sound(autojump_clock, talk) -> None:
    t = await poem(talk, packets=22)
    await t.device.speak(0.9)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop", count=2)
    assert said(t) == [
        ("user", "a poem"),
        ("assistant", POEM),
        ("user", STOP),
        ("assistant", "Fine."),
    ]


async def test_two_interruptions_one_after_the_other(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=8,
        asr=ScriptedRecognizer("不念这一首了", STOP),
        llm=ScriptedLanguageModel([POEM], [SECOND + FIRST], ["Fine."]),
    )
    await t.device.speak(0.9)
    first = packets_before_stop(t)
    await t.device.silence(1.2)
    shown = len(t.device.of_kind("audio")) - first
    assert shown > 0
    await t.device.speak(0.9)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop", count=3)
    kinds = [event.kind for event in t.device.events]
    stops = [place for place, kind in enumerate(kinds) if kind == "tts stop"]
    second = kinds[stops[0] : stops[1]].count("audio")
    assert [role for role, _ in said(t)] == ["user", "assistant"] * 3
    assert said(t)[1][1] == POEM[:first]
    assert said(t)[3][1] == (SECOND + FIRST)[:second]


async def test_a_typed_question_waits_for_no_voice(autojump_clock, talk) -> None:
    """A cough right after it does not take it back."""
    t = await talk(
        asr=ScriptedRecognizer("嗯"), llm=ScriptedLanguageModel([FIRST], first_seconds=1)
    )
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.speak(0.12)
    await t.device.detect("a poem")
    await t.device.speak(0.18)
    await t.device.silence(1.0)
    await trio.sleep(5)
    assert said(t) == [("user", "a poem"), ("assistant", FIRST)]


async def test_draining_while_a_reply_is_suspended(autojump_clock, talk) -> None:
    t = await poem(talk, packets=14)
    await t.device.speak(0.3)
    t.session.end(Closing(1001, "server_shutdown"))
    await t.device.wait_for_hang_up()
    assert t.device.kinds.count("tts start") == t.device.kinds.count("tts stop") == 1
    assert (t.llm.generating, t.tts.speaking) == (0, 0)


async def test_an_abort_forgets_what_was_said_before_it(autojump_clock, talk) -> None:
    t = await talk(asr=ScriptedRecognizer(STOP))
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.speak(0.9)
    await t.device.silence(0.36)
    await t.device.abort()
    await t.device.silence(1.5)
    assert not t.device.of_kind("stt")
    await t.device.speak(0.9)
    await t.device.silence(1.0)
    await t.device.wait_for("stt")
