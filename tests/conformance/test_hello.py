"""Conformance 36 to 43: hello."""

from __future__ import annotations

import json

import pytest
import trio

from xiaozhi_trio.config.settings import LimitSettings, Settings
from xiaozhi_trio.testing import LoudnessDetector, ScriptedRecognizer
from xiaozhi_trio.wire.messages import FRAME_DURATIONS, OPUS_RATES


async def test_036_hello_is_answered_first_and_at_once(autojump_clock, talk) -> None:
    t = await talk()
    began = trio.current_time()
    await t.device.hello()
    first = t.device.events[0]
    assert first.kind == "hello"
    assert first.body["transport"] == "websocket"
    assert first.body["session_id"]
    assert first.body["audio_params"] == {
        "format": "opus",
        "sample_rate": 24000,
        "channels": 1,
        "frame_duration": 60,
    }
    assert first.at - began < 1.0


async def test_036_hello_does_not_wait_for_models(autojump_clock, talk) -> None:
    t = await talk(
        load=True,
        vad=LoudnessDetector(load_seconds=60),
        asr=ScriptedRecognizer(load_seconds=60),
    )
    began = trio.current_time()
    await t.device.hello()
    assert trio.current_time() - began < 1.0


async def test_037_session_id_is_safe_to_echo_unescaped(autojump_clock, talk) -> None:
    t = await talk()
    hello = await t.device.hello()
    session_id = hello.body["session_id"]
    assert json.dumps(session_id) == f'"{session_id}"'
    assert session_id.replace("-", "").isalnum()


async def test_038_a_second_hello_gets_no_second_answer(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.hello()
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    assert len(t.device.of_kind("hello")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"features": None},
        {"audio_params": None},
        {"version": None, "transport": None, "audio_params": None},
        {"surprise": {"nested": [1, 2, 3]}, "text_font": {"bundle": "noto-v1"}},
        {"features": {"mcp": False, "glyph_push": True, "later": 1}},
        {"audio_params": {"format": "opus"}},
        {"audio_params": {"format": "opus", "sample_rate": None}},
    ],
)
async def test_039_sparse_and_strange_hellos_are_accepted(autojump_clock, talk, changes) -> None:
    t = await talk()
    hello = await t.device.hello(**changes)
    assert hello.body["audio_params"]["frame_duration"] == 60


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_039_every_framing_version_is_accepted(autojump_clock, talk, version) -> None:
    t = await talk(binary_version=version)
    await t.device.hello()


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60, 80, 100, 120])
async def test_040_packet_lengths_are_honoured_both_ways(autojump_clock, talk, frame_ms) -> None:
    t = await talk(frame_ms=frame_ms)
    hello = await t.device.hello()
    downlink = hello.body["audio_params"]
    assert downlink["frame_duration"] in FRAME_DURATIONS
    assert downlink["frame_duration"] == min(frame_ms, 60)
    assert downlink["sample_rate"] in OPUS_RATES
    await t.device.listen()
    await t.device.speak(1.2)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    (heard,) = t.asr.heard_ms
    assert 1200 <= heard <= 1200 + 600 + 500 + 2 * frame_ms


@pytest.mark.parametrize(("declared", "sent"), [(7, 5), (3, 5), (-1, 60), (0, 60), (1000, 60)])
async def test_040_odd_packet_lengths_get_one_that_devices_can_open(
    autojump_clock, talk, declared, sent
) -> None:
    t = await talk()
    hello = await t.device.hello(
        audio_params={"format": "opus", "sample_rate": 16000, "frame_duration": declared}
    )
    assert hello.body["audio_params"]["frame_duration"] == sent


async def test_040_a_client_that_wants_its_own_rate_gets_it(autojump_clock, talk) -> None:
    t = await talk()
    hello = await t.device.hello(features={"mcp": False, "consistent_sample_rate": True})
    assert hello.body["audio_params"]["sample_rate"] == 16000


async def test_041_without_hello_the_session_ends(autojump_clock, talk) -> None:
    t = await talk()
    began = trio.current_time()
    at = await t.device.wait_for_hang_up()
    assert at - began == pytest.approx(10.0)
    assert t.closing.code == 1008
    assert t.closing.told == "hello_timeout: no hello within 10 s (limits.hello_seconds)"


async def test_041_other_messages_do_not_put_the_end_off(autojump_clock, talk) -> None:
    settings = Settings(limits=LimitSettings(hello_seconds=2))
    t = await talk(settings=settings)
    began = trio.current_time()
    await t.device.detect("hi")
    await trio.sleep(1.5)
    await t.device.abort()
    assert await t.device.wait_for_hang_up() - began == pytest.approx(2.0)


async def test_042_messages_and_audio_before_hello_are_ignored(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.listen()
    await t.device.speak(1.0, burst=True)
    await t.device.silence(1.0, burst=True)
    await t.device.detect("what?")
    await t.device.abort()
    await t.device.send_raw("not json")
    await t.device.hello()
    await trio.sleep(3)
    assert t.device.kinds == ["hello"]
    assert not t.asr.utterances


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transport": "udp"}, "transport_unsupported"),
        ({"audio_params": {"format": "pcm"}}, "format_unsupported"),
    ],
)
async def test_043_what_is_not_spoken_is_refused_with_the_reason(
    autojump_clock, talk, changes, reason
) -> None:
    t = await talk()
    with pytest.raises(trio.EndOfChannel):
        await t.device.hello(**changes)
    assert (t.closing.code, t.closing.reason) == (1008, reason)
    (alert,) = t.device.of_kind("alert")
    assert alert.body["status"]
    assert alert.body["emotion"]
    assert "不支持" in alert.body["message"]


@pytest.mark.parametrize("audio_params", [{"sample_rate": "16000"}, "x", []])
async def test_043_a_hello_of_wrong_types_is_refused_at_once(
    autojump_clock, talk, audio_params
) -> None:
    t = await talk()
    began = trio.current_time()
    await t.device.send_json(type="hello", audio_params=audio_params)
    assert await t.device.wait_for_hang_up() - began < 1
    assert (t.closing.code, t.closing.reason) == (1008, "hello_malformed")
    (alert,) = t.device.of_kind("alert")
    assert "audio_params" in alert.body["message"]


async def test_043_a_bad_second_hello_is_only_ignored(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.send_json(type="hello", audio_params="x")
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
