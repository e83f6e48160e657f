"""Server-sent events, as far as streaming language models use them.

The event stream format of the HTML standard, read leniently: an event that the
end of the stream leaves unterminated counts, since servers omit the last empty line.
"""

from __future__ import annotations

import re

LONGEST_EVENT_BYTES = 262_144
"""Bound on one event; chunks of a reply are a few hundred bytes."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventStreamError(ValueError):
    """The bytes are no event stream that can be taken in."""


class EventStreamParser:
    """Turns bytes, however they are cut, into the data of events."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_return = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """The data of the events that `chunk` completes; undecodable bytes become U+FFFD.

        Raises `EventStreamError` where an event grows beyond `LONGEST_EVENT_BYTES`.
        """
        events: list[str] = []
        if not chunk:
            return events
        if self._after_return:
            chunk = chunk.removeprefix(b"\n")
        self._after_return = chunk.endswith(b"\r")
        start = 0
        for end in _LINE_END.finditer(chunk):
            self._take(chunk[start : end.start()])
            self._end_line(events)
            start = end.end()
        self._take(chunk[start:])
        return events

    def close(self) -> list[str]:
        """The data of an event that the end of the stream leaves unterminated."""
        events: list[str] = []
        self._end_line(events)
        self._end_event(events)
        return events

    def _take(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > LONGEST_EVENT_BYTES:
            raise EventStreamError(f"an event is longer than {LONGEST_EVENT_BYTES} bytes")
        self._line += part

    def _end_line(self, events: list[str]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            self._end_event(events)
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif not self._data:
            # Keep-alive comments come for as long as a model thinks.
            self._size = 0

    def _end_event(self, events: list[str]) -> None:
        if self._data:
            events.append(b"\n".join(self._data).decode("utf-8", "replace"))
            self._data.clear()
        self._size = 0
