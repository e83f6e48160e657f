"""Binary framing of Opus packets: the xiaozhi protocol's versions 1, 2 and 3.

Layouts are those of the firmware's `protocols/protocol.h`, big-endian. A device
trusts `payload_size` without checking it, so what is written here is exact.

    version 1   the packet itself
    version 2   u16 version=2, u16 type, u32 reserved, u32 timestamp (ms), u32 payload_size, payload
    version 3   u8 type, u8 reserved, u16 payload_size, payload
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

from xiaozhi_trio.wire.violation import ProtocolViolation

VERSIONS: Final = (1, 2, 3)

_HEADER_2: Final = struct.Struct(">HHIII")
_HEADER_3: Final = struct.Struct(">BBH")
_TYPE_OPUS: Final = 0
_TYPE_JSON: Final = 1


@attrs.frozen
class AudioFrame:
    """One Opus packet with what the framing says about it."""

    packet: bytes
    """May be empty, or one or two bytes (DTX), while the user is silent."""
    timestamp: int = 0
    """Uplink: the downlink timestamp that was playing while this was recorded, 0 unknown (ms)."""


@attrs.frozen
class JsonFrame:
    """A JSON message in a binary frame: documented for version 2, sent by no known client."""

    text: bytes


def unpack(data: bytes, version: int) -> AudioFrame | JsonFrame:
    """What a client's binary message holds.

    Raises `ProtocolViolation` where the header and the length do not agree.
    """
    if version == 1:
        return AudioFrame(data)
    header = _HEADER_2 if version == 2 else _HEADER_3
    if len(data) < header.size:
        raise ProtocolViolation(
            "frame_too_short",
            f"binary frame of {len(data)} bytes, version {version} needs at least {header.size}",
        )
    timestamp = 0
    if version == 2:
        _, kind, _, timestamp, size = _HEADER_2.unpack_from(data)
    else:
        kind, _, size = _HEADER_3.unpack_from(data)
    payload = data[header.size :]
    if size != len(payload):
        raise ProtocolViolation(
            "payload_size_mismatch",
            f"header says {size} bytes of payload, {len(payload)} came",
        )
    if kind == _TYPE_OPUS:
        return AudioFrame(payload, timestamp)
    if version == 2 and kind == _TYPE_JSON:
        return JsonFrame(payload)
    raise ProtocolViolation("unknown_frame_type", f"binary frame of type {kind}, expected 0 (Opus)")


def pack(packet: bytes, version: int, timestamp: int) -> bytes:
    """Frame one Opus packet for a device.

    `timestamp` (ms, above 0 and rising) travels in version 2 only.
    """
    if version == 1:
        return packet
    if version == 2:
        return _HEADER_2.pack(2, _TYPE_OPUS, 0, timestamp & 0xFFFF_FFFF, len(packet)) + packet
    return _HEADER_3.pack(_TYPE_OPUS, 0, len(packet)) + packet
