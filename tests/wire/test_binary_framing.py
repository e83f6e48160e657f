"""Binary framing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.binary import AudioFrame, JsonFrame, pack, unpack
from xiaozhi_trio.wire.violation import ProtocolViolation


def test_the_layouts_are_those_of_the_firmware() -> None:
    assert pack(b"op", 1, 7) == b"op"
    assert pack(b"op", 2, 7) == bytes.fromhex("0002 0000 00000000 00000007 00000002") + b"op"
    assert pack(b"op", 3, 7) == bytes.fromhex("00 00 0002") + b"op"


@given(st.binary(max_size=4000), st.sampled_from([1, 2, 3]), st.integers(0, 2**32 - 1))
def test_round_trip(packet, version, timestamp) -> None:
    frame = unpack(pack(packet, version, timestamp), version)
    assert frame == AudioFrame(packet, timestamp if version == 2 else 0)


@given(st.binary(max_size=64), st.sampled_from([1, 2, 3]))
def test_nothing_but_a_violation_is_raised(data, version) -> None:
    with suppress(ProtocolViolation):
        assert isinstance(unpack(data, version), AudioFrame | JsonFrame)


def test_timestamps_wrap_like_the_clock_of_a_device() -> None:
    assert pack(b"", 2, 2**32 + 5)[8:12] == bytes.fromhex("00000005")


@pytest.mark.parametrize(
    ("data", "version", "reason"),
    [
        (b"\0" * 15, 2, "frame_too_short"),
        (b"\0" * 3, 3, "frame_too_short"),
        (bytes.fromhex("0002 0000 00000000 00000000 00000002") + b"x", 2, "payload_size_mismatch"),
        (bytes.fromhex("00 00 0001") + b"xx", 3, "payload_size_mismatch"),
        (bytes.fromhex("0002 0005 00000000 00000000 00000001") + b"x", 2, "unknown_frame_type"),
        (bytes.fromhex("01 00 0001") + b"x", 3, "unknown_frame_type"),
    ],
)
def test_what_is_wrong_is_told(data, version, reason) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        unpack(data, version)
    assert caught.value.reason == reason


def test_json_in_version_2() -> None:
    data = bytes.fromhex("0002 0001 00000000 00000000 00000002") + b"{}"
    assert unpack(data, 2) == JsonFrame(b"{}")
