"""A device's side of RFC 6455 at the lowest price, so that the load does not measure itself.

Frames are masked with a key of zero, which leaves the payload as it is: one encoded
frame serves any number of devices. Servers cannot tell; it is no client for the open
internet, where the mask protects proxies.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from urllib.parse import SplitResult

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_FINAL: Final = 0x80
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_ZERO_KEY: Final = b"\0\0\0\0"
_SHORT: Final = 126
_LONG: Final = 127
_LONGEST: Final = 1 << 20


class UnexpectedAnswer(Exception):
    """The server did not answer as a WebSocket server does; the text says how."""


def upgrade_request(address: SplitResult, device_id: str) -> bytes:
    """The request of firmware 2.4.2 (clients.md 1.2), but for a port in Host and no token."""
    target = address.path or "/"
    if address.query:
        target += f"?{address.query}"
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {address.netloc}",
        f"Client-Id: 00000000-0000-4000-8000-{device_id.replace(':', '')}",
        "Connection: Upgrade",
        f"Device-Id: {device_id}",
        "Protocol-Version: 1",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Upgrade: websocket",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """One whole message as a client sends it."""
    size = len(payload)
    if size < _SHORT:
        head = struct.pack(">BB", _FINAL | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", _FINAL | opcode, _MASKED | _SHORT, size)
    else:
        head = struct.pack(">BBQ", _FINAL | opcode, _MASKED | _LONG, size)
    return head + _ZERO_KEY + payload


class FrameReader:
    """Cuts what a server sends into messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Opcode and payload of each frame completed by `data`.

        Raises `UnexpectedAnswer` for what no server of devices sends: fragments, masked
        frames, and frames beyond a megabyte.
        """
        buffer = self._buffer + data if self._buffer else data
        frames, start = [], 0
        while (found := _head(buffer, start)) is not None:
            begin, size = found
            if len(buffer) < begin + size:
                break
            first = buffer[start]
            if not first & _FINAL:
                raise UnexpectedAnswer("the server sent a message in fragments")
            start = begin + size
            frames.append((first & _OPCODE, buffer[begin:start]))
        self._buffer = buffer[start:]
        return frames


def _head(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload begins and its size; None where the head is not all there."""
    if len(buffer) < start + 2:
        return None
    size, begin = buffer[start + 1], start + 2
    if size == _SHORT:
        if len(buffer) < start + 4:
            return None
        (size,), begin = struct.unpack_from(">H", buffer, begin), start + 4
    elif size == _LONG:
        if len(buffer) < start + 10:
            return None
        (size,), begin = struct.unpack_from(">Q", buffer, begin), start + 10
    elif size & _MASKED:
        raise UnexpectedAnswer("the server masks its frames")
    if size > _LONGEST:
        raise UnexpectedAnswer(f"the server sent a frame of {size} bytes")
    return begin, size
