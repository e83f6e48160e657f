"""Conformance 44 to 51: binary framing."""

from __future__ import annotations

import itertools
import json
import struct

import pytest
import trio

from xiaozhi_trio.audio.opus import OpusEncoder

VOICE = b"\x22\x7f" * 8000


async def _ask(t) -> None:
    await t.device.hello()
    await t.device.listen()
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")


@pytest.mark.parametrize("version", [1, 2, 3], ids=["044_v1", "045_v2", "046_v3"])
async def test_044_045_046_every_framing_carries_a_turn_both_ways(
    autojump_clock, talk, version
) -> None:
    t = await talk(binary_version=version)
    await _ask(t)
    assert t.asr.heard_ms
    reply = "Fine, thank you."
    assert t.device.spoken_ms() == pytest.approx(60 * len(reply), abs=60)


async def test_045_046_headers_are_exact(autojump_clock, talk) -> None:
    for version in (2, 3):
        t = await talk(binary_version=version)
        raw: list[bytes] = []
        unframed = t.device._event

        def record(payload, raw=raw, unframed=unframed):
            if isinstance(payload, bytes):
                raw.append(payload)
            return unframed(payload)

        t.device._event = record
        await _ask(t)
        assert raw
        for frame in raw:
            if version == 2:
                number, kind, reserved, timestamp, size = struct.unpack_from(">HHIII", frame)
                assert (number, kind, reserved, size) == (2, 0, 0, len(frame) - 16)
                assert timestamp > 0
            else:
                kind, reserved, size = struct.unpack_from(">BBH", frame)
                assert (kind, reserved, size) == (0, 0, len(frame) - 4)


async def test_047_the_hello_decides_where_header_and_hello_differ(autojump_clock, talk) -> None:
    t = await talk(binary_version=2, handshake={})
    t.session._handshake = type(t.session._handshake)(device_id="x", protocol_version=3)
    await _ask(t)
    assert t.asr.heard_ms
    assert t.device.spoken_ms() > 0


async def test_047_the_header_decides_where_the_hello_is_silent(autojump_clock, talk) -> None:
    t = await talk(binary_version=3)
    await t.device.hello(version=None)
    await t.device.listen()
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert t.device.spoken_ms() > 0


@pytest.mark.parametrize(
    ("version", "frame"),
    [
        (2, b""),
        (2, b"\x00\x02\x00"),
        (2, struct.pack(">HHIII", 2, 0, 0, 0, 100) + b"\0" * 50),
        (2, struct.pack(">HHIII", 2, 0, 0, 0, 10) + b"\0" * 50),
        (2, struct.pack(">HHIII", 2, 0, 0, 0, 0xFFFFFFFF) + b"\0"),
        (3, b"\x00"),
        (3, struct.pack(">BBH", 0, 0, 65535) + b"\0"),
        (3, struct.pack(">BBH", 0, 0, 1) + b"\0" * 9),
        (3, struct.pack(">BBH", 7, 0, 1) + b"\0"),
    ],
)
async def test_048_frames_that_contradict_themselves_are_dropped(
    autojump_clock, talk, version, frame
) -> None:
    t = await talk(binary_version=version)
    await t.device.hello()
    await t.device.send_raw(frame)
    await t.device.listen()
    await t.device.speak(1.0)
    await t.device.send_raw(frame)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 1


async def test_049_json_in_a_binary_frame_is_taken_as_json(autojump_clock, talk) -> None:
    t = await talk(binary_version=2)
    await t.device.hello()
    text = json.dumps({"type": "listen", "state": "detect", "text": "how are you"}).encode()
    await t.device.send_raw(struct.pack(">HHIII", 2, 1, 0, 0, len(text)) + text)
    stt = await t.device.wait_for("stt")
    assert stt.body["text"] == "how are you"


async def test_050_downlink_timestamps_rise_and_are_never_zero(autojump_clock, talk) -> None:
    t = await talk(binary_version=2)
    await _ask(t)
    stamps = [event.timestamp for event in t.device.of_kind("audio")]
    assert len(stamps) > 5
    assert stamps[0] > 0
    assert all(later > earlier for earlier, later in itertools.pairwise(stamps))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x00",
        b"\x0b\xff",
        b"\xff" * 200,
        b"\x03" + bytes(100),
        bytes(200_000),
        OpusEncoder(16000, frame_ms=120).encode(bytes(16 * 120 * 2)),
    ],
    ids=["empty", "dtx1", "dtx2", "corrupt", "bad-toc", "huge", "longer-than-declared"],
)
async def test_051_odd_packets_do_no_harm(autojump_clock, talk, packet) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen()
    await t.device.send_packet(packet)
    await t.device.speak(1.0)
    await t.device.send_packet(packet)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert len(t.asr.utterances) == 1


async def test_051_empty_packets_count_as_silence(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen()
    await t.device.speak(1.0)
    for _ in range(15):
        await t.device.send_packet(b"")
    with trio.fail_after(1):
        await t.device.wait_for("stt")
