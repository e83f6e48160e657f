from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request
from wsproto.frame_protocol import FrameProtocol, Opcode

from xiaozhi_trio.bench.client_frames import (
    BINARY,
    CLOSE,
    TEXT,
    FrameReader,
    UnexpectedAnswer,
    frame,
    upgrade_request,
)


def sent(payload: bytes) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(payload))


def test_a_server_understands_what_a_device_sends() -> None:
    server = WSConnection(ConnectionType.SERVER)
    address = urlsplit("ws://127.0.0.1:8000/xiaozhi/v1/?a=b")
    server.receive_data(upgrade_request(address, "02:00:00:00:00:01"))
    (request,) = server.events()
    assert isinstance(request, Request)
    assert request.target == "/xiaozhi/v1/?a=b"
    assert (b"device-id", b"02:00:00:00:00:01") in request.extra_headers
    frames = FrameProtocol(client=False, extensions=[])
    for size in (0, 125, 126, 65_535, 65_536):
        frames.receive_bytes(frame(bytes(size)))
        assert sum(len(part.payload) for part in frames.received_frames()) == size
    frames.receive_bytes(frame(b'{"a":1}', TEXT))
    (text,) = frames.received_frames()
    assert (text.opcode, text.payload) == (Opcode.TEXT, '{"a":1}')


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_a_device_understands_a_server_however_its_frames_are_cut(size: int) -> None:
    server = FrameProtocol(client=False, extensions=[])
    payloads = [b"", b"x" * 125, b"y" * 126, b"z" * 70_000]
    stream = b"".join(bytes(server.send_data(payload)) for payload in payloads)
    stream += bytes(server.close(1000))
    reader = FrameReader()
    frames = [
        found
        for start in range(0, len(stream), size)
        for found in reader.feed(stream[start : start + size])
    ]
    assert frames[:-1] == [(BINARY, payload) for payload in payloads]
    assert frames[-1][0] == CLOSE


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (b"\x02\x01x", "fragments"),
        (frame(b"x"), "masks"),
        (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), "frame of"),
    ],
)
def test_what_no_server_of_devices_sends_is_told(stream: bytes, told: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=told):
        FrameReader().feed(stream)
