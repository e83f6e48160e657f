"""The frames in the bytes that a WebSocket client sends, found without keeping any payload.

Needed beside the WebSocket library, which tells whole messages only: a limit must
hold before a payload is stored, and must count what makes no message, pings and
fragments that never end (RFC 6455, 5.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHORT_HEADER: Final = 2
_EXTENDED_LENGTH: Final = {126: 2, 127: 8}
"""Bytes of the length proper, by the length in the second byte."""
_MASK_BYTES: Final = 4
_CONTINUATION: Final = 0x0
_FIRST_CONTROL: Final = 0x8


@attrs.frozen
class FrameFound:
    """A frame whose header has come."""

    start: int
    """Where it begins in the bytes that were fed; 0 where it began in earlier ones."""
    message_bytes: int
    """Payload that its message has announced so far; 0 for control frames."""


class FrameScanner:
    """Follows one direction of one WebSocket, fed in pieces of any size.

    What breaks RFC 6455 is left to the library to object to.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._payload_left = 0
        self._message_bytes = 0

    def feed(self, data: bytes) -> Iterator[FrameFound]:
        """Each frame whose header is complete by now; take them all."""
        position = 0
        while position < len(data):
            if self._payload_left:
                skipped = min(self._payload_left, len(data) - position)
                self._payload_left -= skipped
                position += skipped
                continue
            start = position
            while position < len(data) and (missing := self._missing()):
                self._header += data[position : position + missing]
                position = min(position + missing, len(data))
            if not self._missing():
                yield FrameFound(start, self._end_of_header())

    def _missing(self) -> int:
        """Bytes that the header still lacks, as far as it tells."""
        size = _SHORT_HEADER
        if len(self._header) >= _SHORT_HEADER:
            size += _EXTENDED_LENGTH.get(self._header[1] & 0x7F, 0)
            size += _MASK_BYTES if self._header[1] & 0x80 else 0
        return size - len(self._header)

    def _end_of_header(self) -> int:
        opcode, length = self._header[0] & 0x0F, self._header[1] & 0x7F
        if length in _EXTENDED_LENGTH:
            end = _SHORT_HEADER + _EXTENDED_LENGTH[length]
            length = int.from_bytes(self._header[_SHORT_HEADER:end])
        self._header.clear()
        self._payload_left = length
        if opcode >= _FIRST_CONTROL:
            return 0
        self._message_bytes = length + (self._message_bytes if opcode == _CONTINUATION else 0)
        return self._message_bytes
