"""Conformance 66 to 75 (72 and 73 at the level of a session): what the device is sent."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.config.settings import (
    AudioSettings,
    ConversationSettings,
    PlayoutSettings,
    Settings,
)
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import PcmChunk
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
)


def failure(engine: str = "scripted") -> EngineError:
    return EngineError("out of order", engine=engine, category=EngineErrorCategory.INTERNAL)


def assert_paired(device: SimulatedDevice) -> None:
    """Every `tts start` has its `tts stop`, and there is no audio outside of them."""
    speaking = False
    for event in device.events:
        if event.kind == "tts start":
            assert not speaking, device.kinds
            speaking = True
        elif event.kind == "tts stop":
            speaking = False
        elif event.kind in {"audio", "tts sentence_start"}:
            assert speaking, device.kinds
    assert not speaking, device.kinds


async def ask(t, text: str = "hello?") -> None:
    await t.device.hello()
    await t.device.detect(text)
    await t.device.wait_for("tts stop")


async def test_066_the_order_of_a_reply(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["First one. ", "Second one. ", "Third one."]))
    await ask(t)
    sentence = ["tts sentence_start", "audio"]
    assert t.device.kinds == [
        *["hello", "stt", "tts start", "llm"],
        *sentence,
        *sentence,
        *sentence,
        "tts stop",
    ]
    texts = [event.body["text"] for event in t.device.of_kind("tts sentence_start")]
    assert texts == ["First one.", "Second one.", "Third one."]


async def test_066_each_subtitle_comes_with_its_own_audio(autojump_clock, talk) -> None:
    t = await talk(
        llm=ScriptedLanguageModel(["The first sentence is here. ", "Here is the second one."])
    )
    await ask(t)
    first, second = t.device.of_kind("tts sentence_start")
    between = [e for e in t.device.of_kind("audio") if first.at <= e.at < second.at]
    length = len("The first sentence is here.")
    assert len(between) == pytest.approx(length, abs=1)


async def test_066_session_id_is_in_every_message(autojump_clock, talk) -> None:
    t = await talk()
    await ask(t)
    assert {e.body["session_id"] for e in t.device.events if e.body} == {"f" * 32}


@pytest.mark.parametrize(
    "broken",
    [
        {"asr": ScriptedRecognizer(failure())},
        {"llm": ScriptedLanguageModel([failure()])},
        {"llm": ScriptedLanguageModel(["Well, it is like this. ", failure()])},
        {"tts": ScriptedSynthesizer(fails=lambda _: failure())},
        {"tts": ScriptedSynthesizer(fails=lambda text: failure() if "two" in text else None)},
        {
            "llm": ScriptedLanguageModel([failure()]),
            "tts": ScriptedSynthesizer(fails=lambda _: failure()),
        },
        {"llm": ScriptedLanguageModel([])},
        {"llm": ScriptedLanguageModel(["", " ", "\n"])},
        {"llm": ScriptedLanguageModel(["😀"])},
        {"llm": ScriptedLanguageModel(["***"])},
        {"asr": ScriptedRecognizer("hi", load_error=failure())},
        {"llm": ScriptedLanguageModel(load_error=failure())},
        {"tts": ScriptedSynthesizer(load_error=failure())},
        {"asr": ScriptedRecognizer("hi", seconds=1e6)},
        {"llm": ScriptedLanguageModel(["x"], first_seconds=1e6)},
        {"llm": ScriptedLanguageModel(["One. ", "Two."], piece_seconds=1e6)},
        {"tts": ScriptedSynthesizer(seconds=1e6)},
    ],
    ids=[
        *["asr", "llm", "llm-midway", "tts", "tts-one-sentence", "llm-and-tts"],
        *["empty", "blank", "emoji-only", "markup-only"],
        *["asr-not-loaded", "llm-not-loaded", "tts-not-loaded"],
        *["asr-hangs", "llm-hangs", "llm-hangs-midway", "tts-hangs"],
    ],
)
async def test_067_every_start_has_its_stop_whatever_fails(autojump_clock, talk, broken) -> None:
    t = await talk(load=True, **broken)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    assert_paired(t.device)
    assert len(t.device.of_kind("tts stop")) == 1
    await t.device.detect("你好小智")
    if "tts" not in broken:
        await t.device.wait_for("tts stop", count=2)
        assert_paired(t.device)
    assert t.closing is None


async def test_067_a_vanishing_device_ends_its_turn(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["Long story. "] * 50))
    await t.device.hello()
    await t.device.detect("tell me")
    await t.device.wait_for("audio", count=10)
    t.link.hang_up()
    await t.device.wait_for_hang_up()
    assert t.closing.reason == "peer_gone"
    assert_paired(t.device)
    assert (t.llm.generating, t.tts.speaking) == (0, 0)


@pytest.mark.parametrize(("frame_ms", "most"), [(60, 5), (20, 15), (5, 30), (100, 3)])
async def test_068_audio_is_paced_in_real_time(autojump_clock, talk, frame_ms, most) -> None:
    settings = Settings(audio=AudioSettings(frame_ms=frame_ms))
    t = await talk(
        frame_ms=frame_ms,
        settings=settings,
        llm=ScriptedLanguageModel(["This is a rather long sentence to be spoken. "] * 3),
    )
    await ask(t)
    audio = t.device.of_kind("audio")
    began = audio[0].at
    for sent, event in enumerate(audio, start=1):
        played = (event.at - began) * 1000 / frame_ms
        assert sent - played <= most + 1e-6, (sent, played)
        assert sent - played >= 0
    assert (audio[-1].at - began) * 1000 == pytest.approx((len(audio) - most) * frame_ms, abs=1)


async def test_068_a_slow_synthesis_does_not_make_a_burst_later(autojump_clock, talk) -> None:
    t = await talk(
        llm=ScriptedLanguageModel(["One, two, three. ", "Four, five, six. "], piece_seconds=5),
    )
    await ask(t)
    second = t.device.of_kind("tts sentence_start")[1]
    late = [event.at for event in t.device.of_kind("audio") if event.at >= second.at]
    assert sum(at - late[0] < 1e-6 for at in late) <= 5


@pytest.mark.parametrize("gap", [0, 60, 200])
async def test_069_the_first_packet_leaves_room_after_tts_start(autojump_clock, talk, gap) -> None:
    t = await talk(settings=Settings(playout=PlayoutSettings(start_gap_ms=gap)))
    await ask(t)
    start, first = t.device.of_kind("tts start")[0], t.device.of_kind("audio")[0]
    assert (first.at - start.at) * 1000 == pytest.approx(gap, abs=1e-3)


async def test_069_the_default_gap_is_long_enough_for_devices(autojump_clock, talk) -> None:
    assert PlayoutSettings().start_gap_ms >= 50


async def test_070_stop_comes_after_everything_has_been_played(autojump_clock, talk) -> None:
    t = await talk()
    await ask(t)
    audio, stop = t.device.of_kind("audio"), t.device.of_kind("tts stop")[0]
    played_out = audio[0].at + len(audio) * 0.060
    assert stop.at >= audio[-1].at
    assert stop.at - played_out == pytest.approx(0.120, abs=0.002)


@pytest.mark.parametrize("frame_ms", [20, 60])
@pytest.mark.parametrize("source_rate", [16_000, 22_050, 24_000, 44_100])
async def test_071_every_packet_has_the_negotiated_length(
    autojump_clock, talk, frame_ms, source_rate
) -> None:
    t = await talk(frame_ms=frame_ms, tts=ScriptedSynthesizer(sample_rate=source_rate, chunk_ms=70))
    await ask(t)
    decoder = OpusDecoder(24_000)
    lengths = {len(decoder.decode(e.packet)) // 48 for e in t.device.of_kind("audio")}
    assert lengths == {frame_ms}


@pytest.mark.parametrize(
    ("reply", "emotion"),
    [("😂 That is funny!", "funny"), ("Well.", "neutral"), ("😔对不起。", "sad")],
)
async def test_072_the_face_fits_the_reply(autojump_clock, talk, reply, emotion) -> None:
    t = await talk(llm=ScriptedLanguageModel([reply]))
    await ask(t)
    (llm,) = t.device.of_kind("llm")
    assert llm.body["emotion"] == emotion
    assert llm.body["text"]
    assert "😂" not in t.tts.sentences[0]


async def test_072_no_face_for_clients_that_want_none(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello(features={"mcp": False, "emoji": False})
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    assert not t.device.of_kind("llm")


async def test_073_subtitles_are_clean(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["**Bold** `code` and\u0007 a [link](http://x.y/z)."]))
    await ask(t)
    (sentence,) = t.device.of_kind("tts sentence_start")
    assert sentence.body["text"] == "Bold code and a link."


async def test_074_a_very_long_reply_is_bounded(autojump_clock, talk) -> None:
    settings = Settings(conversation=ConversationSettings(max_reply_characters=500))
    llm = ScriptedLanguageModel(["And so on it went. "] * 10_000)
    t = await talk(settings=settings, llm=llm)
    await ask(t)
    assert 400 <= sum(map(len, t.tts.sentences)) <= 510
    assert llm.generating == 0


async def test_074_the_pipeline_waits_for_the_playout(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["And so on it went, on and on. "] * 100))
    await t.device.hello()
    await t.device.detect("go on")
    await t.device.wait_for("audio", count=20)
    spoken = sum(map(len, t.tts.sentences)) * 60
    assert spoken <= 20 * 60 + 10_000 + 3 * 2000
    await t.device.abort()


async def test_074_a_client_that_does_not_read_slows_the_speech_down(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["And so on it went, on and on. "] * 50))
    await t.device.hello()
    delivered = 0
    taken = t.session.outbox.next_payload

    async def stalled() -> str | bytes:
        nonlocal delivered
        payload = await taken()
        if isinstance(payload, bytes):
            delivered += 1
            if delivered == 10:
                await trio.sleep(60)
        return payload

    t.session.outbox.next_payload = stalled
    await t.device.detect("go on")
    await trio.sleep(59)
    assert len(t.session.outbox._items) < 20
    assert sum(map(len, t.tts.sentences)) * 60 < 20_000


async def test_075_a_failed_engine_is_told_in_speech(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel([failure()]))
    await ask(t, "what is the time?")
    assert "Sorry" in t.tts.sentences[0]
    await t.device.detect("现在几点")
    await t.device.wait_for("tts stop", count=2)
    assert "抱歉" in t.tts.sentences[1]


async def test_075_a_failed_voice_is_told_on_the_screen(autojump_clock, talk) -> None:
    t = await talk(tts=ScriptedSynthesizer(fails=lambda _: failure()))
    await ask(t)
    (alert,) = t.device.of_kind("alert")
    assert all(alert.body[key] for key in ("status", "message", "emotion"))
    assert_paired(t.device)


async def test_075_a_failed_sentence_does_not_take_the_others_with_it(autojump_clock, talk) -> None:
    t = await talk(
        llm=ScriptedLanguageModel(["Sentence number one. ", "Number two fails. ", "Number three."]),
        tts=ScriptedSynthesizer(fails=lambda text: failure() if "two" in text else None),
    )
    await ask(t)
    texts = [event.body["text"] for event in t.device.of_kind("tts sentence_start")]
    assert texts == ["Sentence number one.", "Number three."]
    assert not t.device.of_kind("alert")


@pytest.mark.parametrize("chunk", [PcmChunk(b"\0" * 1001, 16_000), PcmChunk(bytes(960), 0)])
async def test_075_garbage_for_a_voice_is_told_on_the_screen(autojump_clock, talk, chunk) -> None:
    class Garbled(ScriptedSynthesizer):
        async def _chunks(self, sentence: str):
            await trio.lowlevel.checkpoint()
            yield chunk

    t = await talk(tts=Garbled())
    await ask(t)
    assert len(t.device.of_kind("alert")) == 1
    assert_paired(t.device)


async def test_074_an_endless_transcript_is_cut(autojump_clock, talk) -> None:
    t = await talk(
        asr=ScriptedRecognizer("no end to it " * 20_000),
        settings=Settings(conversation=ConversationSettings(history_characters=300)),
    )
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(0.6, burst=True)
    await t.device.stop_listening()
    stt = await t.device.wait_for("stt")
    assert len(stt.body["text"]) == 300


async def test_075_a_missing_detector_is_told_when_the_microphone_opens(
    autojump_clock, talk
) -> None:
    from xiaozhi_trio.testing import LoudnessDetector

    t = await talk(load=True, vad=LoudnessDetector(load_error=failure("vad")))
    await t.device.hello()
    await trio.sleep(1)
    await t.device.listen("auto")
    await t.device.wait_for("alert")
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.stop_listening()
    await t.device.wait_for("stt")
