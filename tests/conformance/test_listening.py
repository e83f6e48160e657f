"""Conformance 52 to 65: listening."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.settings import ConversationSettings, ListeningSettings, Settings
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

AT_THE_END = Settings(listening=ListeningSettings(speculation=False))
"""Utterances are recognised once, at their end."""
TURN = ["stt", "tts start", "llm", "tts sentence_start", "audio", "tts stop"]


async def test_052_auto_the_server_ends_the_turn(autojump_clock, talk) -> None:
    t = await talk(asr=ScriptedRecognizer("how are you"), settings=AT_THE_END)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.silence(0.6)
    await t.device.speak(1.2)
    ended = trio.current_time()
    await t.device.silence(1.2)
    stt = await t.device.wait_for("stt")
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]
    assert stt.body["text"] == "how are you"
    assert 0.5 <= stt.at - ended <= 0.8
    (heard,) = t.asr.heard_ms
    assert heard == pytest.approx(500 + 1200 + 600, abs=150)


async def test_052_one_microphone_serves_turn_after_turn(autojump_clock, talk) -> None:
    """The browser page says `listen start` once and never again."""
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    for turn in range(1, 4):
        await t.device.speak(1.0)
        await t.device.silence(1.0)
        await t.device.wait_for("tts stop", count=turn)
    assert len(t.asr.utterances) == 3


async def test_053_manual_nothing_is_answered_before_listen_stop(autojump_clock, talk) -> None:
    t = await talk(settings=AT_THE_END)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(1.0)
    await t.device.silence(3.0)
    await t.device.speak(0.6)
    assert t.device.kinds == ["hello"]
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]
    assert t.asr.heard_ms == [pytest.approx(4600, abs=120)]


async def test_054_realtime_speaking_over_the_reply_interrupts_it(autojump_clock, talk) -> None:
    t = await talk(llm=ScriptedLanguageModel(["A very long reply indeed. "] * 20))
    await t.device.hello()
    await t.device.listen("realtime")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("audio", count=20)
    await t.device.silence(0.6)
    assert not t.device.of_kind("tts stop")
    began = trio.current_time()
    await t.device.speak(0.6)
    stop = await t.device.wait_for("tts stop")
    assert stop.at - began <= 0.4
    sent = len(t.device.of_kind("audio"))
    await t.device.speak(0.4)
    assert len(t.device.of_kind("audio")) == sent
    await t.device.silence(1.2)
    await t.device.wait_for("stt", count=2)
    assert len(t.asr.utterances) == 2
    assert t.asr.heard_ms[1] >= 1000


async def test_054_realtime_without_echo_cancellation_does_not_hear_itself(
    autojump_clock, talk
) -> None:
    """`features.aec` means that the device expects the server to cancel its echo."""
    t = await talk(
        asr=ScriptedRecognizer("go on", "other long reply. A rather"),
        llm=ScriptedLanguageModel(["A rather long reply. "] * 5),
    )
    await t.device.hello(features={"aec": True})
    await t.device.listen("realtime")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("audio", count=5)
    await t.device.speak(2.0)
    await t.device.wait_for("tts stop")
    assert len(t.device.of_kind("stt")) == 1
    assert t.device.spoken_ms() > 5000


@pytest.mark.parametrize(
    ("wake_word", "greeting"),
    [("你好小智", "我在呢"), ("嘿，你好呀", "我在呢"), ("Hi, Xiaozhi!", "listening")],
)
async def test_055_a_wake_word_is_greeted(autojump_clock, talk, wake_word, greeting) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.detect(wake_word)
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]
    (sentence,) = t.device.of_kind("tts sentence_start")
    assert greeting in sentence.body["text"]
    assert not t.llm.dialogues


async def test_055_other_text_is_a_question(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.detect("你叫什么名字？")
    stt = await t.device.wait_for("stt")
    await t.device.wait_for("tts stop")
    assert stt.body["text"] == "你叫什么名字？"
    assert t.llm.dialogues[0][-1].content == "你叫什么名字？"


async def test_055_the_greeting_can_be_silence(autojump_clock, talk) -> None:
    settings = Settings(conversation=ConversationSettings(greeting_zh=""))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.detect("你好小智")
    await trio.sleep(5)
    assert t.device.kinds == ["hello"]


async def test_056_the_wake_word_burst_is_not_fatal_and_not_answered(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.speak(2.0, burst=True)
    await t.device.detect("你好小智")
    await t.device.listen("auto")
    await t.device.wait_for("tts stop")
    await t.device.silence(3.0)
    assert t.device.kinds == ["hello", *TURN]
    assert not t.asr.utterances


async def test_056_who_goes_on_speaking_is_heard_from_the_first_syllable(
    autojump_clock, talk
) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.speak(0.48, burst=True)
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("stt")
    assert t.asr.heard_ms[0] >= 480 + 1000 + 90


async def test_057_listen_start_twice_discards_what_came_before(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(2.0)
    await t.device.listen("auto")
    await t.device.silence(1.0)
    assert not t.asr.utterances
    await t.device.speak(0.6)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 1
    assert t.asr.heard_ms[0] <= 500 + 600 + 600 + 120


async def test_057_abort_with_two_listen_starts_makes_one_clean_turn(autojump_clock, talk) -> None:
    """py-xiaozhi says `listen start` after its abort and again after our `tts stop`."""
    t = await talk(llm=ScriptedLanguageModel(["Long. "] * 30))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("audio", count=5)
    await t.device.abort()
    await t.device.listen("auto")
    await t.device.wait_for("tts stop")
    await t.device.listen("auto")
    await t.device.silence(1.0)
    assert t.device.kinds[-1] == "tts stop"
    assert len(t.device.of_kind("tts start")) == 1
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("tts start", count=2)


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_058_audio_after_listen_stop_is_ignored(autojump_clock, talk, mode) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen(mode)
    await t.device.stop_listening()
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    assert not t.asr.utterances


async def test_058_audio_after_abort_is_ignored(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(0.6)
    await t.device.abort()
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    assert not t.asr.utterances
    assert t.device.kinds == ["hello", "tts stop"]


async def test_058_audio_while_the_server_speaks_is_ignored_in_auto_mode(
    autojump_clock, talk
) -> None:
    t = await talk(llm=ScriptedLanguageModel(["A rather long reply. "] * 5))
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.0)
    await t.device.wait_for("tts start")
    await t.device.speak(2.0)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 1


@pytest.mark.parametrize("said", [0.0, 0.06])
async def test_059_nothing_said_makes_no_reply_and_no_hang(autojump_clock, talk, said) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(said)
    await t.device.silence(0.5)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", "tts stop"]
    assert not t.llm.dialogues


async def test_059_listen_stop_without_start(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    await t.device.detect("still there?")
    await t.device.wait_for("stt")


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_059_noise_without_words_is_not_answered(autojump_clock, talk, mode) -> None:
    t = await talk(asr=ScriptedRecognizer(" "))
    await t.device.hello()
    await t.device.listen(mode)
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.stop_listening()
    await trio.sleep(1)
    assert not t.device.of_kind("stt")
    assert not t.device.of_kind("tts start")
    assert not t.llm.dialogues


async def test_060_a_burst_is_judged_by_its_own_time(autojump_clock, talk) -> None:
    t = await talk(asr=ScriptedRecognizer("how do you do"))
    await t.device.hello()
    await t.device.listen("auto")
    began = trio.current_time()
    await t.device.speak(1.0, burst=True)
    await t.device.silence(0.5, burst=True)
    await t.device.speak(1.0, burst=True)
    await t.device.silence(1.2, burst=True)
    stt = await t.device.wait_for("stt")
    assert stt.at - began < 0.1
    assert len(t.device.of_kind("stt")) == 1
    assert max(t.asr.heard_ms) >= 2590


async def test_060_a_slow_network_does_not_end_a_turn(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(0.6)
    await trio.sleep(1.5)
    await t.device.speak(0.6)
    assert not t.asr.utterances
    await t.device.silence(1.2)
    await t.device.wait_for("stt")
    assert len(t.asr.utterances) == 1


async def test_060_packets_that_never_come_do_not_hold_the_turn_open(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    last = trio.current_time()
    stt = await t.device.wait_for("stt")
    assert stt.at - last == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("order", ["listen manual, text", "listen auto, text", "text, listen auto"])
async def test_061_typed_text_and_listen_start_in_one_go(autojump_clock, talk, order) -> None:
    t = await talk()
    await t.device.hello()
    for step in order.split(", "):
        if step == "text":
            await t.device.detect("你叫什么名字")
        else:
            await t.device.listen(step.removeprefix("listen "))
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]


async def test_062_session_ids_of_clients_do_not_matter(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.send_json(type="listen", state="detect", text="one")
    await t.device.wait_for("tts stop")
    await t.device.send_json(type="listen", state="detect", text="two", session_id="stale")
    await t.device.wait_for("tts stop", count=2)
    await t.device.send_json(type="listen", state="detect", text="three", session_id=5)
    await t.device.wait_for("tts stop", count=3)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "listen"},
        {"type": "listen", "state": "pause"},
        {"type": "listen", "state": 5},
        {"type": "listen", "state": "start", "mode": "telepathy"},
        {"type": "listen", "state": "start", "mode": ["auto"]},
        {"type": "listen", "state": "detect"},
        {"type": "listen", "state": "detect", "text": 1},
        {"type": "listen", "state": "detect", "text": ""},
        {"type": "listen", "state": "detect", "text": "x" * 5000},
        {"type": ["listen"]},
        {"type": None},
        {"type": "abort", "reason": 7},
        {"type": "mcp"},
        {"type": "mcp", "payload": "x"},
        {"type": "iot", "states": []},
        {},
    ],
)
async def test_063_malformed_messages_are_ignored(autojump_clock, talk, message) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.send_json(**message)
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"listen","state":"detect","text":"say "hi""}',
        "",
        "5",
        "true",
        "[]",
        '"hello"',
        "null",
        "{" * 100_000,
        '{"type":"listen","state":"detect","text":NaN}',
        '{"a":' * 2000 + "1" + "}" * 2000,
    ],
    ids=["quotes", "empty", "int", "bool", "list", "str", "null", "braces", "nan", "deep"],
)
async def test_064_invalid_json_is_ignored(autojump_clock, talk, text) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.send_raw(text)
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    assert t.device.kinds == ["hello", *TURN]


async def test_065_endless_speech_is_cut_and_answered(autojump_clock, talk) -> None:
    settings = Settings(listening=ListeningSettings(max_utterance_seconds=5))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(6.0)
    await t.device.wait_for("stt")
    assert t.asr.heard_ms[0] == 5000


async def test_065_endless_speech_into_a_held_button_is_bounded(autojump_clock, talk) -> None:
    settings = Settings(listening=ListeningSettings(max_utterance_seconds=5))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.speak(60.0, burst=True)
    await t.device.stop_listening()
    await t.device.wait_for("stt")
    assert t.asr.heard_ms == [5000]


async def test_065_endless_silence_ends_the_session(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    began = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await t.device.silence(200)
    assert await t.device.wait_for_hang_up() - began == pytest.approx(100, abs=1)
    assert (t.closing.code, t.closing.reason) == (1000, "idle")


async def test_065_somebody_who_speaks_is_not_cut_off_as_idle(autojump_clock, talk) -> None:
    settings = Settings(listening=ListeningSettings(idle_seconds=10, max_utterance_seconds=60))
    t = await talk(settings=settings)
    await t.device.hello()
    await t.device.listen("manual")
    await t.device.silence(8)
    await t.device.speak(20)
    await t.device.stop_listening()
    await t.device.wait_for("tts stop")
    assert await t.device.wait_for_hang_up() > 38


async def test_065_a_long_reply_is_not_idleness(autojump_clock, talk) -> None:
    settings = Settings(listening=ListeningSettings(idle_seconds=10))
    t = await talk(settings=settings, llm=ScriptedLanguageModel(["And so it went on. "] * 30))
    await t.device.hello()
    await t.device.detect("tell me a story")
    await t.device.wait_for("tts stop")
    assert t.device.spoken_ms() > 25_000


async def test_a_detector_that_loads_late_hears_what_came_before(autojump_clock, talk) -> None:
    t = await talk(load=True, vad=LoudnessDetector(load_seconds=0.3), tts=ScriptedSynthesizer())
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.5)
    await t.device.silence(1.2)
    await t.device.wait_for("stt")
    assert len(t.asr.utterances) == 1
