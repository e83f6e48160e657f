from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from xiaozhi_trio.wire.frames import FrameScanner


def frame(first: int, payload: bytes, *, masked: bool = True) -> bytes:
    length = len(payload)
    if length < 126:
        size = bytes([length])
    else:
        size = bytes([126]) + length.to_bytes(2) if length < 65536 else bytes([127]) + (
            length.to_bytes(8)
        )  # fmt: skip
    mask = b"\0\0\0\0" if masked else b""
    return bytes([first, size[0] | (0x80 if masked else 0)]) + size[1:] + mask + payload


def sizes(data: bytes) -> list[int]:
    return [found.message_bytes for found in FrameScanner().feed(data)]


def test_a_message_is_the_sum_of_its_fragments() -> None:
    data = frame(0x01, b"abc") + frame(0x89, b"ping") + frame(0x00, b"de") + frame(0x80, b"f")
    assert sizes(data + frame(0x82, b"x")) == [3, 0, 5, 6, 1]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_every_length(length: int) -> None:
    data = frame(0x82, bytes(length))
    assert sizes(data + data) == [length, length]
    assert sizes(frame(0x82, bytes(length), masked=False)) == [length]


def test_a_length_is_told_before_the_payload_comes() -> None:
    assert sizes(b"\x82\xff" + (2**62).to_bytes(8) + bytes(4)) == [2**62]


def test_a_frame_begins_where_its_header_does() -> None:
    scanner = FrameScanner()
    first = frame(0x81, b"ab")
    assert [found.start for found in scanner.feed(first + first + first[:3])] == [0, 8]
    assert [found.start for found in scanner.feed(first[3:] + first)] == [0, 5]


@given(st.data(), st.lists(st.binary(max_size=300), max_size=5))
def test_frames_of_a_real_client_in_any_pieces(data: st.DataObject, payloads: list[bytes]) -> None:
    client = FrameProtocol(client=True, extensions=[])
    sent = b"".join(bytes(client.send_data(payload, fin=True)) for payload in payloads)
    scanner, found, position = FrameScanner(), [], 0
    while position < len(sent):
        size = data.draw(st.integers(1, 50))
        found += scanner.feed(sent[position : position + size])
        position += size
    assert [each.message_bytes for each in found] == [len(payload) for payload in payloads]


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_are_scanned(pieces: list[bytes]) -> None:
    scanner = FrameScanner()
    for piece in pieces:
        for found in scanner.feed(piece):
            assert 0 <= found.start < len(piece)
            assert found.message_bytes >= 0
