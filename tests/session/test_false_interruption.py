"""A reply that fell silent for nothing goes on where its sentence began."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ListeningSettings, PlayoutSettings, Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)
from xiaozhi_trio.testing.engines import LoudnessStream

FIRST, SECOND, THIRD = "春眠不觉晓处处闻啼鸟。", "夜来风雨声花落知多少。", "白日依山尽黄河入海流。"
POEM = FIRST + SECOND + THIRD
"""A character is a packet of 60 ms."""

ECHO = SECOND[:8]
SETTINGS = Settings(
    listening=ListeningSettings(end_of_turn="silence"), playout=PlayoutSettings(lead_ms=300)
)

FALSE = [
    pytest.param(0.18, ScriptedRecognizer("嗯"), id="phantom"),
    pytest.param(0.9, ScriptedRecognizer("嗯嗯"), id="backchannel"),
    pytest.param(0.9, ScriptedRecognizer("对对"), id="agreement"),
    pytest.param(0.9, ScriptedRecognizer(ECHO), id="echo"),
    pytest.param(0.9, ScriptedRecognizer(""), id="nothing"),
    pytest.param(0.9, ScriptedRecognizer("谢谢观看"), id="subtitle"),
    pytest.param(0.9, ScriptedRecognizer("嗯嗯", seconds=3.0), id="slow"),
    pytest.param(
        0.9,
        ScriptedRecognizer(
            EngineError("broken", engine="asr", category=EngineErrorCategory.INTERNAL)
        ),
        id="recogniser failed",
    ),
]


async def poem(talk, *, packets: int, **more):
    """A device that hears a poem, and has got so many packets of it."""
    engines = {
        "asr": ScriptedRecognizer("嗯嗯"),
        "llm": ScriptedLanguageModel([FIRST, SECOND, THIRD], ["Fine."]),
        "settings": SETTINGS,
    }
    t = await talk(**{**engines, **more})
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=packets)
    return t


def said(t) -> list[tuple[str, str]]:
    dialogue = t.session._conversation._tools.history.dialogue("")
    return [(message.role, message.content) for message in dialogue[1:]]


def heard(t) -> list[tuple[str, int]]:
    """Every sentence that was shown, with the packets that came for it."""
    sentences: list[tuple[str, int]] = []
    for event in t.device.events:
        if event.kind == "tts sentence_start":
            sentences.append((event.body["text"], 0))
        elif event.kind == "audio":
            text, packets = sentences[-1]
            sentences[-1] = (text, packets + 1)
    return sentences


def assert_paired(t) -> None:
    speaking = False
    for event in t.device.events:
        if event.kind == "tts start":
            assert not speaking, t.device.kinds
            speaking = True
        elif event.kind == "tts stop":
            assert speaking, t.device.kinds
            speaking = False
        elif event.kind in {"audio", "tts sentence_start"}:
            assert speaking, t.device.kinds
    assert not speaking


async def cough(t) -> None:
    """Voice in four windows of the detector: enough to interrupt, too little to be speech."""
    await t.device.speak(0.12)
    await t.device.silence(0.02)


@pytest.mark.parametrize(("voice", "asr"), FALSE)
async def test_the_reply_goes_on_from_its_sentence(autojump_clock, talk, voice, asr) -> None:
    t = await poem(talk, packets=14, asr=asr)
    await t.device.speak(voice)
    assert t.device.kinds[-1] == "tts stop"
    await t.device.silence(4.5)
    await t.device.wait_for("tts stop", count=2)
    assert_paired(t)
    (first, whole), (second, part), *rest = heard(t)
    assert (first, whole, second) == (FIRST, 11, SECOND)
    assert 3 <= part < 11
    assert rest == [(SECOND, 11), (THIRD, 11)]
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]
    assert len(t.llm.dialogues) == 1
    assert t.tts.sentences == [FIRST, SECOND, THIRD]
    assert len(t.device.of_kind("stt")) == 1


async def test_a_cough_is_over_before_it_is_asked_about(autojump_clock, talk) -> None:
    t = await poem(talk, packets=14, frame_ms=20)
    await cough(t)
    assert t.device.kinds[-1] == "tts stop"
    stopped = trio.current_time()
    await t.device.silence(0.6)
    start = t.device.of_kind("tts start")[1]
    assert start.at - stopped < 0.45
    assert not t.asr.utterances
    await t.device.wait_for("tts stop", count=2)
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]


async def test_the_trace_tells_why_the_reply_went_on(autojump_clock, talk, log_lines) -> None:
    t = await poem(talk, packets=14)
    await t.device.speak(0.9)
    await t.device.silence(4)
    await t.device.wait_for("tts stop", count=2)
    assert [line["reason"] for line in log_lines("false interruption")] == ["backchannel"]
    assert [line["verdict"] for line in log_lines("heard, but not said to us")] == ["backchannel"]
    lines = [line for line in log_lines("turn over") if line["occasion"] == "typed"]
    assert [line["interruptions"] for line in lines] == [1]


async def test_two_false_interruptions_of_one_sentence(autojump_clock, talk) -> None:
    t = await poem(talk, packets=14)
    for stops in (1, 2):
        await t.device.speak(0.9)
        assert len(t.device.of_kind("tts stop")) == stops
        await t.device.silence(0.9)
    await t.device.silence(3)
    await t.device.wait_for("tts stop", count=3)
    assert_paired(t)
    assert [text for text, _ in heard(t)] == [FIRST, SECOND, SECOND, SECOND, THIRD]
    assert heard(t)[-2:] == [(SECOND, 11), (THIRD, 11)]
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]


async def test_one_that_is_false_and_one_that_is_not(autojump_clock, talk) -> None:
    t = await poem(talk, packets=14, asr=ScriptedRecognizer("嗯嗯", "别念了说点别的"))
    await t.device.speak(0.9)
    await t.device.silence(0.9)
    await t.device.speak(0.9)
    (_, once), (_, again) = heard(t)[1:]
    await t.device.silence(1.5)
    await t.device.wait_for("tts stop", count=3)
    assert_paired(t)
    # What was heard of the sentence twice is remembered once.
    most = max(once, again)
    assert said(t)[:3] == [
        ("user", "a poem"),
        ("assistant", FIRST + SECOND[:most]),
        ("user", "别念了说点别的"),
    ]


@pytest.mark.parametrize("packets", [1, 2, 10, 11, 12, 22, 23, 33])
async def test_wherever_it_was_interrupted(autojump_clock, talk, packets) -> None:
    t = await poem(talk, packets=packets)
    await t.device.speak(0.9)
    await t.device.silence(1.5)
    await trio.sleep(5)
    assert_paired(t)
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]
    for text in (FIRST, SECOND, THIRD):
        assert (text, 11) in heard(t)


async def test_at_its_end_nothing_is_left_to_go_on_with(autojump_clock, talk) -> None:
    """All of it was sent, and the device plays on what it holds."""
    t = await poem(talk, packets=33)
    await t.device.speak(0.18)
    assert t.device.kinds[-1] == "tts stop"
    await t.device.silence(2)
    await trio.sleep(1)
    assert len(t.device.of_kind("tts start")) == 1
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]
    await t.device.detect("more")
    await t.device.wait_for("tts stop", count=2)
    assert_paired(t)


@pytest.mark.parametrize("then", ["voice that is speech", "voice that is none yet"])
async def test_packets_that_stop_while_the_reply_is_silent(autojump_clock, talk, then) -> None:
    t = await poem(talk, packets=14, frame_ms=20)
    if then == "voice that is speech":
        await t.device.speak(0.6)
    else:
        await cough(t)
    assert t.device.kinds[-1] == "tts stop"
    with trio.fail_after(20):
        await t.device.wait_for("tts start", count=2)
        await t.device.wait_for("tts stop", count=2)
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]


async def test_a_detector_that_fails_while_the_reply_is_silent(autojump_clock, talk) -> None:
    class Unsteady(LoudnessDetector):
        fails = False

        def open_stream(self) -> LoudnessStream:
            detector = self

            class Stream(LoudnessStream):
                async def accept(self, pcm: bytes):
                    await trio.lowlevel.checkpoint()
                    if detector.fails:
                        raise EngineError("no", engine="vad", category=EngineErrorCategory.BUSY)
                    return await super().accept(pcm)

            return Stream(500)

    vad = Unsteady()
    t = await poem(talk, packets=14, vad=vad, frame_ms=20)
    await cough(t)
    assert t.device.kinds[-1] == "tts stop"
    vad.fails = True
    await t.device.silence(0.1)
    assert len(t.device.of_kind("tts start")) == 2
    await t.device.wait_for("tts stop", count=2)
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]


async def test_a_reply_that_is_still_made_is_made_meanwhile(autojump_clock, talk) -> None:
    t = await poem(
        talk,
        packets=4,
        llm=ScriptedLanguageModel([FIRST, SECOND, THIRD], piece_seconds=1.5),
        tts=ScriptedSynthesizer(seconds=0.2, chunk_ms=120),
    )
    await t.device.speak(0.9)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop", count=2)
    assert_paired(t)
    assert heard(t)[1:] == [(FIRST, 11), (SECOND, 11), (THIRD, 11)]
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]
    assert len(t.llm.dialogues) == 1


async def test_before_the_first_sound(autojump_clock, talk) -> None:
    t = await talk(
        asr=ScriptedRecognizer("嗯嗯"),
        llm=ScriptedLanguageModel([FIRST], first_seconds=0.7),
        settings=SETTINGS,
    )
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.speak(0.42)
    await t.device.silence(1.5)
    await t.device.wait_for("tts stop", count=2)
    assert_paired(t)
    assert heard(t) == [(FIRST, 11)]
    assert said(t) == [("user", "a poem"), ("assistant", FIRST)]


async def test_a_reply_interrupted_for_nothing_survives_a_listen_start(
    autojump_clock, talk
) -> None:
    """Some clients answer each `tts stop` with it: it must not discard the voice."""
    t = await poem(talk, packets=14, asr=ScriptedRecognizer("别念了说点别的"))
    await t.device.speak(0.24)
    await t.device.listen("realtime")
    await t.device.speak(0.72)
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop", count=2)
    assert_paired(t)
    assert t.asr.heard_ms[0] > 900
    assert said(t)[-2:] == [("user", "别念了说点别的"), ("assistant", "Fine.")]


@pytest.mark.parametrize("heard_as", [ECHO, "别念了说点别的"])
async def test_a_device_that_hears_itself_is_not_interrupted_by_its_own_voice(
    autojump_clock, talk, heard_as
) -> None:
    """It leaves the echo to the server: only other words than ours interrupt."""
    t = await talk(
        asr=ScriptedRecognizer(heard_as),
        llm=ScriptedLanguageModel([FIRST, SECOND, THIRD], ["Fine."]),
        settings=SETTINGS,
    )
    await t.device.hello(features={"aec": True})
    await t.device.listen("realtime")
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=12)
    await t.device.speak(0.6)
    assert not t.device.of_kind("tts stop")
    await t.device.silence(1.0)
    await t.device.wait_for("tts stop")
    await trio.sleep(5)
    assert_paired(t)
    if heard_as is ECHO:
        assert heard(t) == [(FIRST, 11), (SECOND, 11), (THIRD, 11)]
        assert said(t) == [("user", "a poem"), ("assistant", POEM)]
    else:
        assert said(t)[2:] == [("user", heard_as), ("assistant", "Fine.")]


async def test_the_language_lock(autojump_clock, talk) -> None:
    class Korean(ScriptedRecognizer):
        async def transcribe(self, pcm: bytes):
            await super().transcribe(pcm)
            return Transcript("안녕하세요", language="ko")

    listening = ListeningSettings(languages=("zh", "en"), end_of_turn="silence")
    t = await poem(talk, packets=14, asr=Korean(), settings=Settings(listening=listening))
    await t.device.speak(0.9)
    await t.device.silence(1.5)
    await t.device.wait_for("tts stop", count=2)
    assert said(t) == [("user", "a poem"), ("assistant", POEM)]


async def test_a_microphone_that_was_closed_meanwhile_opens_again(talk, autojump_clock) -> None:
    understood = ScriptedRecognizer(
        EngineError("broken", engine="asr", category=EngineErrorCategory.INTERNAL, retryable=False),
        "what time is it",
        seconds=5.0,
    )
    t = await poem(talk, packets=8, asr=understood)
    await t.device.speak(0.3)
    await t.device.wait_for("tts stop")
    await t.device.stop_listening()
    await t.device.listen("realtime")
    await t.device.speak(0.66)
    await t.device.silence(1.0)
    await t.device.wait_for("stt", count=2)
    assert t.device.of_kind("stt")[1].body["text"] == "what time is it"


async def test_a_button_pressed_for_nothing_does_not_end_a_reply(talk, autojump_clock) -> None:
    replies = ScriptedLanguageModel(["Fine."], [FIRST, SECOND])
    t = await poem(talk, packets=1, asr=ScriptedRecognizer(""), llm=replies)
    await t.device.wait_for("tts stop")
    await t.device.listen("manual")
    await t.device.speak(0.3)
    await t.device.detect("a poem")
    await t.device.wait_for("audio", count=12)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop", count=2)
    await trio.sleep(3)
    assert_paired(t)
    assert heard(t)[1:] == [(FIRST, len(FIRST)), (SECOND, len(SECOND))]
