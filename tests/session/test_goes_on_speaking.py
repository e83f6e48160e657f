"""Who goes on speaking after the end that was none: neither half is lost."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, Settings
from xiaozhi_trio.engines.protocols import LISTENING_RATE, Transcript
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedSynthesizer, tone_speech
from xiaozhi_trio.testing.engines import ScriptedRecognizer
from xiaozhi_trio.testing.uplink import Uplink, UplinkProfile

ONE, TWO = "Tell me what", "the time is"


class Understanding(ScriptedRecognizer):
    """Hears tone speech."""

    async def transcribe(self, pcm: bytes) -> Transcript:
        await super().transcribe(pcm)
        return Transcript(tone_speech.transcript(pcm))


async def meet(talk, mode: str, *, asr_seconds: float = 0.0, speculation: bool = True, **more):
    t = await talk(
        asr=Understanding(seconds=asr_seconds),
        llm=ScriptedLanguageModel(["It is noon."], first_seconds=0.2),
        tts=ScriptedSynthesizer(seconds=0.1),
        settings=Settings(
            listening=ListeningSettings(
                end_of_turn="silence", speculation=speculation, **more.pop("listening", {})
            )
        ),
        **{"frame_ms": 20, **more},
    )
    await t.device.hello()
    await t.device.listen(mode)
    return t


async def stream(t, pcm: bytes, profile: UplinkProfile | None = None) -> None:
    """Send PCM in real time, by a way of this quality."""
    async with trio.open_nursery() as nursery:
        uplink = Uplink(
            lambda packet, _: t.device.send_packet(packet),
            frame_ms=t.device.frame_ms,
            profile=profile or UplinkProfile(),
        )
        nursery.start_soon(uplink.run)
        size = LISTENING_RATE * t.device.frame_ms // 1000 * 2
        pcm += bytes(-len(pcm) % size)
        for start in range(0, len(pcm), size):
            uplink.push(pcm[start : start + size])
            await trio.sleep(t.device.frame_ms / 1000)
        await trio.sleep(0.3)
        nursery.cancel_scope.cancel()


def speech(text: str) -> bytes:
    return tone_speech.speech(text, LISTENING_RATE)


def silence(seconds: float) -> bytes:
    return bytes(round(seconds * LISTENING_RATE) * 2)


def asked(t) -> str:
    """All that the user said, as the history has it."""
    dialogue = t.session._conversation._tools.history.dialogue("")
    return " ".join(message.content for message in dialogue if message.role == "user")


def assert_paired(t) -> None:
    kinds = [kind for kind in t.device.kinds if kind in {"tts start", "tts stop"}]
    assert kinds == ["tts start", "tts stop"] * (len(kinds) // 2)


@pytest.mark.parametrize("asr_seconds", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("speculation", [True, False])
@pytest.mark.parametrize("pause", [0.3, 0.56, 0.62, 0.66, 0.7, 0.8, 1.0])
async def test_with_an_open_microphone(
    autojump_clock, talk, pause, speculation, asr_seconds
) -> None:
    """Whether the first half is being recognised, thought about or spoken to."""
    t = await meet(talk, "realtime", asr_seconds=asr_seconds, speculation=speculation)
    await stream(t, silence(0.5) + speech(ONE) + silence(pause) + speech(TWO) + silence(2.5))
    await trio.sleep(8)
    assert asked(t).split() == [*ONE.split(), *TWO.split()]
    assert_paired(t)
    assert t.device.kinds[-1] == "tts stop"
    assert t.llm.dialogues[-1][-1].content.split()[-3:] == TWO.split()


@pytest.mark.parametrize("pause", [0.3, 0.56, 0.62, 0.7, 0.9])
@pytest.mark.parametrize("speculation", [True, False])
async def test_until_the_microphone_is_closed(autojump_clock, talk, pause, speculation) -> None:
    """In auto mode it is open as long as the recogniser has not answered."""
    t = await meet(talk, "auto", asr_seconds=1.0, speculation=speculation)
    await stream(t, silence(0.5) + speech(ONE) + silence(pause) + speech(TWO) + silence(2.5))
    await trio.sleep(8)
    assert asked(t).split() == [*ONE.split(), *TWO.split()]
    assert t.device.kinds.count("tts start") == 1
    assert_paired(t)


async def test_a_click_after_the_end_only_delays_the_answer(autojump_clock, talk) -> None:
    t = await meet(talk, "auto", asr_seconds=1.0)
    await stream(t, speech(ONE) + silence(0.8))
    await t.device.speak(0.14)
    await stream(t, silence(1.5))
    await trio.sleep(5)
    assert asked(t) == ONE
    assert_paired(t)
    assert t.device.kinds[-1] == "tts stop"


async def test_a_device_that_goes_silent_after_it_went_on_is_answered(autojump_clock, talk) -> None:
    t = await meet(talk, "auto", asr_seconds=1.0)
    await stream(t, speech(ONE) + silence(0.8) + speech(TWO)[: LISTENING_RATE // 4 * 2])
    await t.device.wait_for("tts stop")
    assert asked(t).startswith(ONE)


@pytest.mark.parametrize("voice", [0.1, 0.12, 0.14, 0.16])
async def test_who_goes_on_and_gives_up_is_idle_some_time(autojump_clock, talk, voice) -> None:
    t = await meet(talk, "auto", asr_seconds=2.0)
    await stream(t, speech(ONE) + silence(0.7))
    await t.device.speak(voice)
    await t.device.listen("auto")
    with trio.fail_after(120):
        await t.device.wait_for_hang_up()


WHOLE = "现在几点"
PROFILES = {
    "steady": UplinkProfile(),
    "bursts": UplinkProfile(burst=5),
    "DTX": UplinkProfile(dtx="packets"),
    "DTX gaps": UplinkProfile(dtx="gaps"),
    "jitter": UplinkProfile(jitter_ms=30),
    "loss": UplinkProfile(loss=0.02),
}


@pytest.mark.parametrize("frame_ms", [20, 40, 60])
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
async def test_the_same_is_understood(autojump_clock, talk, frame_ms, profile) -> None:
    t = await meet(talk, "auto", frame_ms=frame_ms)
    await stream(t, silence(0.3) + speech(WHOLE) + silence(1.0), profile)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == WHOLE


async def test_the_first_word_after_the_wake_word(autojump_clock, talk) -> None:
    """Frames from before any `listen`, the wake word's own among them."""
    t = await talk(asr=Understanding(), llm=ScriptedLanguageModel(["It is noon."]), frame_ms=20)
    await t.device.hello()
    said = silence(0.4) + speech(ONE) + silence(1.2)
    begin = LISTENING_RATE * 700 // 1000 * 2
    await stream(t, said[:begin])
    await t.device.listen("auto")
    await stream(t, said[begin:])
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == ONE


async def test_the_first_word_after_the_reply(autojump_clock, talk) -> None:
    """With a client that says `listen start` once only."""
    t = await meet(talk, "auto")
    await t.device.detect("hello")
    await t.device.wait_for("tts stop")
    await stream(t, speech(TWO) + silence(1.0))
    stt = await t.device.wait_for("stt", count=2)
    assert stt.body["text"] == TWO


async def test_endless_speech_is_cut_and_answered(autojump_clock, talk) -> None:
    t = await meet(talk, "auto", listening={"max_utterance_seconds": 3})
    await stream(t, speech("and so on " * 6))
    await t.device.wait_for("tts start")
    assert t.asr.heard_ms[-1] == 3000
    assert asked(t).startswith("and so on and so on")
    await t.device.wait_for("tts stop")
