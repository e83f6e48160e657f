"""JSON messages, both ways."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.emotion import Emotion
from xiaozhi_trio.wire.messages import (
    Abort,
    Alert,
    AudioParams,
    Features,
    Hello,
    ListenDetect,
    ListenMode,
    ListenStart,
    ListenStop,
    LlmEmotion,
    McpFromDevice,
    McpToDevice,
    Other,
    ServerHello,
    Stt,
    TtsSentenceStart,
    TtsStart,
    TtsStop,
    decode,
    encode,
)
from xiaozhi_trio.wire.violation import ProtocolViolation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"hello"}', Hello()),
        (
            '{"type":"hello","version":3,"features":{"mcp":true,"aec":true,"x":1},'
            '"transport":"websocket","audio_params":{"format":"opus","sample_rate":48000,'
            '"channels":2,"frame_duration":20}}',
            Hello(3, "websocket", Features(mcp=True, aec=True), AudioParams("opus", 48000, 2, 20)),
        ),
        ('{"type":"hello","version":null,"features":{"mcp":null}}', Hello()),
        ('{"type":"listen","state":"start"}', ListenStart()),
        ('{"type":"listen","state":"start","mode":"manual"}', ListenStart(ListenMode.MANUAL)),
        ('{"type":"listen","state":"stop","mode":5}', ListenStop()),
        ('{"type":"listen","state":"detect"}', ListenDetect()),
        ('{"type":"listen","state":"detect","text":"你好"}', ListenDetect("你好")),
        ('{"type":"abort"}', Abort()),
        ('{"type":"abort","reason":"wake_word_detected"}', Abort("wake_word_detected")),
        ('{"type":"mcp","payload":{"a":1}}', McpFromDevice({"a": 1})),
        ('{"type":"goodbye"}', Other("goodbye")),
        (b'{"type":"iot"}', Other("iot")),
    ],
)
def test_what_devices_send(text, message) -> None:
    assert decode(text) == message


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        ("{", "json_malformed", ""),
        (b"\xff\xfe", "json_malformed", ""),
        ("[]", "json_not_object", "list"),
        ("5", "json_not_object", "int"),
        ("{}", "type_missing", ""),
        ('{"type":5}', "type_missing", ""),
        ('{"type":"listen"}', "listen_state_unknown", ""),
        ('{"type":"listen","state":["start"]}', "listen_state_unknown", ""),
        ('{"type":"listen","state":"start","mode":"x"}', "message_malformed", "mode"),
        ('{"type":"listen","state":"detect","text":5}', "message_malformed", "text"),
        ('{"type":"hello","version":"3"}', "hello_malformed", "version"),
        ('{"type":"hello","version":true}', "hello_malformed", "version"),
        ('{"type":"hello","audio_params":[]}', "hello_malformed", "audio_params"),
        (
            '{"type":"hello","audio_params":{"sample_rate":"16000"}}',
            "hello_malformed",
            "$.audio_params.sample_rate",
        ),
        ('{"type":"hello","features":{"mcp":"yes"}}', "hello_malformed", "$.features.mcp"),
        ('{"type":"abort","reason":{}}', "message_malformed", "reason"),
        ('{"type":"listen","state":"detect","text":"' + "x" * 4001 + '"}', "text_too_long", "4001"),
    ],
)
def test_what_is_not_a_message_is_told_by_reason(text, reason, says) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode(text)
    assert caught.value.reason == reason
    assert says in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = ["state", "mode", "text", "reason", "payload", "version", "features", "audio_params"]
kinds = st.sampled_from(["hello", "listen", "abort", "mcp", "iot"])
bodies = st.fixed_dictionaries(
    {"type": kinds | json_values},
    optional=dict.fromkeys(fields, json_values)
    | {"state": st.sampled_from(["start", "stop", "detect"]) | json_values},
)


@given(st.text() | st.binary() | json_values.map(json.dumps) | bodies.map(json.dumps))
def test_nothing_but_a_violation_is_raised(text) -> None:
    with suppress(ProtocolViolation):
        decode(text)


@pytest.mark.parametrize("depth", [900, 1000, 1100, 100_000])
def test_deep_nesting_is_taken_or_refused(depth) -> None:
    nested = "[" * depth + "]" * depth
    with suppress(ProtocolViolation):
        decode(f'{{"type":"hello","features":{nested}}}')
    with suppress(ProtocolViolation):
        decode(f'{{"type":"mcp","payload":{nested}}}')


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (
            ServerHello(AudioParams(sample_rate=24_000)),
            {
                "type": "hello",
                "version": 1,
                "transport": "websocket",
                "audio_params": {
                    "format": "opus",
                    "sample_rate": 24_000,
                    "channels": 1,
                    "frame_duration": 60,
                },
            },
        ),
        (Stt("你好"), {"type": "stt", "text": "你好"}),
        (TtsStart(), {"type": "tts", "state": "start"}),
        (TtsSentenceStart("Hi."), {"type": "tts", "state": "sentence_start", "text": "Hi."}),
        (TtsStop(), {"type": "tts", "state": "stop"}),
        (LlmEmotion(Emotion.HAPPY), {"type": "llm", "emotion": "happy", "text": "🙂"}),
        (McpToDevice({"id": 1}), {"type": "mcp", "payload": {"id": 1}}),
        (
            Alert("s", "m"),
            {"type": "alert", "status": "s", "message": "m", "emotion": "sad"},
        ),
    ],
)
def test_what_the_server_sends(message, body) -> None:
    assert json.loads(encode(message, "id1")) == {**body, "session_id": "id1"}
