"""The head of the one HTTP request that a connection begins with.

Parsed here and not by h11, because a head without `Host` must be served too, and
because every byte a peer may send has to end in a plain answer. The head is never
passed on: an upgrade gets a clean one instead (`wire/upgrade.py`).
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from xiaozhi_trio.wire.refusal import HandshakeRefused

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%b) +([^\x00-\x20\x7f]+) +HTTP/([0-9])\.[0-9] *" % _TOKEN)
_FIELD_NAME: Final = re.compile(_TOKEN)
_END: Final = re.compile(rb"\r?\n\r?\n")


@attrs.frozen
class RequestHead:
    """Request line and header fields."""

    method: str
    target: bytes
    """As sent: path and query, or a whole URL where the peer thinks we are a proxy."""
    headers: tuple[tuple[bytes, bytes], ...]
    """In their order; names in lower case, values stripped."""

    @property
    def path(self) -> str:
        """The target's path, not percent-decoded."""
        text = self.target.decode("latin-1").partition("?")[0].partition("#")[0]
        if not text.startswith("/") and "://" in text:
            return "/" + text.partition("://")[2].partition("/")[2]
        return text

    def first(self, name: bytes) -> bytes | None:
        """The first value of a header; None where it was not sent."""
        return next((value for field, value in self.headers if field == name), None)

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """The comma-separated words of all headers of this name, in lower case."""
        return frozenset(
            token.strip().lower()
            for field, value in self.headers
            if field == name
            for token in value.split(b",")
        )


def find_end(received: bytes | bytearray, searched: int = 0) -> int | None:
    """Where the head ends, just behind the empty line; None while there is none.

    `searched` bytes are known to hold no end, so that a slow peer costs no time.
    """
    # Empty lines before the request line are allowed (RFC 9112, 2.2).
    blank = len(received) - len(received.lstrip(b"\r\n"))
    match = _END.search(received, max(blank, searched - 3))
    return match.end() if match else None


def parse_request_head(raw: bytes) -> RequestHead:
    """Parse a head up to and with its empty line.

    Raises `HandshakeRefused` with the reason `request_malformed` or `http_version`.
    """
    lines = raw.strip(b"\r\n").split(b"\n")
    request_line = _REQUEST_LINE.fullmatch(lines[0].rstrip(b"\r"))
    if request_line is None:
        raise malformed_request("the first line is not METHOD TARGET HTTP/1.1")
    method, target, major = request_line.groups()
    if major != b"1":
        raise HandshakeRefused(
            reason="http_version",
            status=505,
            error="http_version_not_supported",
            message_zh=f"不支持 HTTP/{major.decode()}，请使用 HTTP/1.1",
            message_en=f"the request is HTTP/{major.decode()}, HTTP/1.1 was expected",
            fix="let the client or the proxy in between use HTTP/1.1",
        )
    headers = tuple(_field(number, line) for number, line in enumerate(lines[1:], start=2))
    return RequestHead(method.decode("ascii"), target, headers)


def _field(number: int, line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.rstrip(b"\r").partition(b":")
    if not colon or not _FIELD_NAME.fullmatch(name) or b"\x00" in value or b"\r" in value:
        raise malformed_request(f"line {number} of the request head is not Name: value")
    return name.lower(), value.strip(b" \t")


def malformed_request(message: str) -> HandshakeRefused:
    """The refusal of what is not HTTP/1; the message says why."""
    return HandshakeRefused(
        reason="request_malformed",
        status=400,
        error="bad_request",
        message_zh="HTTP 请求格式不正确",
        message_en=message,
        fix="send an HTTP/1.1 request",
    )
