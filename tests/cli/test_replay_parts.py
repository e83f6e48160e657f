"""The player against a scripted server on a virtual clock, and the comparison by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from xiaozhi_trio.cli.recorded_conversation import (
    AUDIO,
    HUNG_UP,
    Happening,
    RecordedConversation,
    RecordingUnreadable,
    Step,
    read_recording,
)
from xiaozhi_trio.cli.replay_differences import differences, first_speech
from xiaozhi_trio.cli.replayed_device import ReplayedDevice
from xiaozhi_trio.store.recording_format import (
    Binary,
    Ended,
    Heading,
    LeftOut,
    Line,
    Message,
    Packet,
    Stopped,
    Text,
    heading_json,
    line_json,
)
from xiaozhi_trio.testing import MemoryLink
from xiaozhi_trio.wire.binary import AudioFrame, pack

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

HEADING = Heading(began="b", unix=0, server="s", session="i", device="d", protocol_version=2)
PACKET = bytes([0b01011_000]) + b"x" * 20
"""60 ms by its first byte."""


def said(at: float, kind: str, text: str = "", *, ms: float = 0) -> Happening:
    return Happening(at, "server", kind, text, ms)


def conversation(*steps: Step, ends_at: float = 0, **more: Any) -> RecordedConversation:
    members = {"happenings": (), "timestamps": (), "notes": ()} | more
    return RecordedConversation(heading=HEADING, steps=steps, ends_at=ends_at, **members)


class Wire(MemoryLink):
    close_code = 1000


async def served(link: MemoryLink, came: list[tuple[float, Any]]) -> None:
    while True:
        payload = await link.from_device.receive()
        came.append((trio.current_time(), payload))


async def test_audio_keeps_its_time_and_messages_wait(autojump_clock: MockClock) -> None:
    link, came = Wire(), []
    recorded = conversation(
        Step(0.0, {"type": "hello", "version": 3}),
        Step(0.5, AudioFrame(PACKET, 7)),
        Step(1.0, {"type": "listen", "state": "start"}, ("hello", "tts stop")),
        Step(1.1, AudioFrame(PACKET)),
        Step(1.2, "no json"),
        Step(1.3, b"raw"),
        ends_at=2.0,
        timestamps=[5, 7],
    )
    device = ReplayedDevice(recorded, link, speed=1, patience=100)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served, link, came)
        nursery.start_soon(device.play)
        await trio.sleep(0.2)
        await link.to_device.send('{"type":"hello"}')
        await trio.sleep(3)
        await link.to_device.send(pack(PACKET, 3, 0))
        await link.to_device.send('{"type":"tts","state":"stop"}')
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert [round(at - began, 3) for at, _ in came] == [0, 0.5, 3.2, 3.3, 3.4, 3.5]
    assert came[1][1] == pack(PACKET, 3, 0)
    assert came[4][1] == "no json"
    assert came[5][1] == b"raw"
    assert device.notes == []
    assert [each.kind for each in device.happenings if each.side == "server"] == [
        "hello",
        AUDIO,
        "tts stop",
    ]


async def test_timestamps_are_those_of_this_time(autojump_clock: MockClock) -> None:
    link, came = Wire(), []
    recorded = conversation(
        Step(1.0, AudioFrame(PACKET, 7)), Step(1.1, AudioFrame(PACKET, 9)), timestamps=[5, 7, 9]
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served, link, came)
        await link.to_device.send(pack(PACKET, 2, 101))
        await link.to_device.send(pack(PACKET, 2, 102))
        await ReplayedDevice(recorded, link).play()
        nursery.cancel_scope.cancel()
    assert [payload for _, payload in came] == [pack(PACKET, 2, 102), pack(PACKET, 2, 0)]


async def test_it_goes_on_without_what_does_not_come(autojump_clock: MockClock) -> None:
    link, came = Wire(), []
    recorded = conversation(Step(2.0, {"type": "abort"}, ("tts start",)))
    device = ReplayedDevice(recorded, link, speed=2, patience=5)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served, link, came)
        await device.play()
        nursery.cancel_scope.cancel()
    assert came[0][0] - began == pytest.approx(6)
    assert device.notes == ["went on at 2 s of the recording without: tts start"]


async def test_a_server_that_hangs_up_ends_it(autojump_clock: MockClock) -> None:
    link = Wire()
    recorded = conversation(Step(2.0, "x"), Step(3.0, "y"), ends_at=50)
    device = ReplayedDevice(recorded, link, patience=5)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.play)
        await link.to_device.send("[]")
        await link.to_device.send("{")
        await link.to_device.send(b"x")
        await link.to_device.aclose()
    assert trio.current_time() - began == pytest.approx(2)
    assert device.notes == ["the server hung up before the last 2 steps of the device"]
    assert [each.kind for each in device.happenings] == ["text", "text", "binary", HUNG_UP]


async def test_it_waits_for_the_rest_of_the_conversation(autojump_clock: MockClock) -> None:
    link = Wire()
    recorded = conversation(ends_at=1, happenings=(said(0.5, "stt"),))
    device = ReplayedDevice(recorded, link, patience=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.play)
        await trio.sleep(3)
        await link.to_device.send(json.dumps({"type": "stt", "text": "late"}))
        began = trio.current_time()
    assert trio.current_time() == began
    assert device.happenings[0].text == "late"


CONVERSATION = (
    said(0, "hello"),
    Happening(0.1, "device", "listen start"),
    Happening(0.2, "device", AUDIO),
    said(1, "stt", "hi"),
    said(1, "tts start"),
    said(1.1, AUDIO, ms=600),
    said(1.2, "mcp tools/list"),
    said(1.3, AUDIO, ms=600),
    said(2, "tts stop"),
    said(3, HUNG_UP, "1000"),
)


def changed(*positions: int, by: tuple[Happening, ...] = ()) -> list[Happening]:
    kept = [each for place, each in enumerate(CONVERSATION) if place not in positions]
    return kept[: min(positions)] + list(by) + kept[min(positions) :]


@pytest.mark.parametrize(
    ("replayed", "expected"),
    [
        (CONVERSATION, []),
        (changed(6, by=()), ["missing mcp tools/list"]),
        (changed(8), ["missing tts stop"]),
        (changed(9), ["missing hung up: close code 1000"]),
        (changed(9, by=(said(3, HUNG_UP, "1001"),)), ["text hung up: '1000' -> '1001'"]),
        (changed(3, by=(said(1, "stt", "ho"),)), ["text stt: 'hi' -> 'ho'"]),
        (changed(3, by=(said(1, "stt", "hi"), said(1, "alert", "no"))), ["added alert: 'no'"]),
        (changed(7), ["speech_length audio: 1200 ms -> 600 ms"]),
        (changed(5, 7), ["missing audio: 1200 ms"]),
        (changed(5, by=(said(1.4, AUDIO, ms=600),)), ["first_speech after: 1000 ms -> 1300 ms"]),
    ],
)
def test_differences_are_told(replayed: list[Happening], expected: list[str]) -> None:
    found = differences(CONVERSATION, replayed)
    assert [" ".join(str(each).split()[2:]) for each in found] == expected


def test_words_and_times_count_only_where_they_are_wanted() -> None:
    replayed = changed(3, by=(said(1, "stt", "ho"),))
    assert differences(CONVERSATION, replayed, texts=False) == []
    late = changed(5, by=(said(1.4, AUDIO, ms=600),))
    assert differences(CONVERSATION, late, tolerance_ms=None) == []
    assert differences(CONVERSATION, late, tolerance_ms=400) == []
    assert first_speech(CONVERSATION) == [(1.1, 1.0)]


def written(folder: Path, *lines: Line, tail: bytes = b"") -> Path:
    (folder / "handshake.json").write_bytes(heading_json(HEADING))
    (folder / "messages.jsonl").write_bytes(b"".join(map(line_json, lines)) + tail)
    return folder


def test_a_recording_is_read_with_what_it_lacks(tmp_path: Path) -> None:
    mcp = {"type": "mcp", "payload": {"method": "tools/list", "id": 1}}
    folder = written(
        tmp_path,
        Message(at=0, side="device", body={"type": "hello"}),
        Message(at=0.1, side="server", body={"type": "hello"}),
        Message(at=0.2, side="server", body=mcp),
        LeftOut(at=0.3, device=2, server=1),
        Message(at=0.4, side="device", body={"type": "mcp", "payload": {"result": {}}}),
        Message(at=0.4, side="server", body={"type": "mcp", "payload": []}),
        Text(at=0.5, side="device", text="t"),
        Binary(at=0.6, side="device", base64="eA=="),
        Text(at=0.5, side="server", text="t"),
        Stopped(at=0.7, reason="full"),
        tail=b'{"kind":"tex',
    )
    read = read_recording(folder)
    assert [step.after for step in read.steps] == [(), ("hello", "mcp tools/list"), (), ()]
    assert read.steps[3].payload == b"x"
    assert read.notes == [
        "2 messages of the device and 1 of the server are left out before 0.3 s",
        "recorded until 0.7 s only: full",
    ]
    assert not read.server_hung_up
    assert read.ends_at == 0.7


@pytest.mark.parametrize(
    ("reason", "expected"), [("idle", True), ("peer_gone", False), ("server_shutdown", False)]
)
def test_who_hung_up(tmp_path: Path, reason: str, expected: bool) -> None:
    read = read_recording(written(tmp_path, Ended(at=1, reason=reason, code=1000)))
    assert read.server_hung_up is expected


def test_a_damaged_recording_is_told_by_file(tmp_path: Path) -> None:
    written(tmp_path, Packet(at=0, side="device", number=0))
    with pytest.raises(RecordingUnreadable, match=r"uplink\.ogg"):
        read_recording(tmp_path)
    (tmp_path / "uplink.ogg").write_bytes(b"nothing")
    with pytest.raises(RecordingUnreadable, match=r"uplink\.ogg: .*Ogg"):
        read_recording(tmp_path)
    written(tmp_path, Binary(at=0, side="device", base64="="))
    with pytest.raises(RecordingUnreadable, match="base64"):
        read_recording(tmp_path)
    (tmp_path / "handshake.json").write_text("{}")
    with pytest.raises(RecordingUnreadable, match=r"handshake\.json"):
        read_recording(tmp_path)
