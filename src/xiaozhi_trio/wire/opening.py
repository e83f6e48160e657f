"""The opening of a connection: its first bytes, until it is known what the peer speaks and wants.

A state machine without I/O. Whoever owns the socket feeds it what comes, asks for what is
due next (a PROXY header where the peer is trusted, TLS where there is TLS, the request
head), and reads on while the answer is None.
"""

from __future__ import annotations

from typing import Final

from xiaozhi_trio.wire import dialect
from xiaozhi_trio.wire.proxy_header import (
    ProxyHeader,
    ProxyHeaderMalformed,
    may_begin,
    parse_proxy_header,
)
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, find_end, parse_request_head

TELLING_SECONDS: Final = 0.5
"""Time for the rest of the first bytes to come, where the first of them are no HTTP."""

_TLS_HANDSHAKE_RECORD: Final = b"\x16"


class PeerLeft(Exception):
    """The peer hung up, or stopped reading, before it was known what it wanted."""


class Stranger(Exception):
    """The peer speaks something that we do not."""

    def __init__(self, what: dialect.Dialect) -> None:
        super().__init__(what.explanation)
        self.dialect = what


class Opening:
    """What one peer has sent so far."""

    def __init__(self, *, head_bytes: int) -> None:
        self.has_spoken = False
        """Whether a single byte of the client has come."""
        self._head_bytes = head_bytes
        self._received = bytearray()
        self._searched = 0

    def take(self, data: bytes | bytearray) -> None:
        """Add what has come; an empty piece is the end of the stream and raises `PeerLeft`."""
        if not data:
            raise PeerLeft("the peer hung up during the handshake")
        self.has_spoken = True
        self._received += data

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to judge by."""
        return not self._received

    @property
    def is_tls(self) -> bool:
        """Whether this is what a TLS handshake begins with."""
        return self._received.startswith(_TLS_HANDSHAKE_RECORD)

    @property
    def is_strange(self) -> bool:
        """Whether this cannot become an HTTP request any more."""
        return not dialect.might_be_http(self._first)

    @property
    def is_telling(self) -> bool:
        """Whether more bytes would not tell more of what a strange peer speaks."""
        return len(self._received) >= dialect.TELLING_BYTES

    def stranger(self) -> Stranger:
        """What to raise for a strange peer, by all that has come of it."""
        return Stranger(dialect.recognise(self._first))

    def overdue(self, seconds: float) -> Stranger | HandshakeRefused:
        """What to raise where no request head has come within so many seconds."""
        # A PROXY header that stays unfinished is that of a slow load balancer.
        if self.is_strange and not may_begin(self._first):
            return self.stranger()
        return HandshakeRefused(
            reason="handshake_timeout" if self.has_spoken else "silent_peer",
            status=408,
            error="request_timeout",
            message_zh=f"{seconds:g} 秒内没有收到完整的请求头",
            message_en=f"no complete request head came within {seconds:g} s",
            fix="look for a network that loses packets, or a scanner; [limits] handshake_seconds "
            "is the time allowed",
        )

    def proxy_header(self) -> ProxyHeader | None:
        """The PROXY header, which is taken off; None while more must come.

        One of no bytes where there is none. To be asked of a trusted peer only, before
        anything else. Raises `Stranger` for a header that is malformed.
        """
        if self.is_silent:
            return None
        if not may_begin(self._first):
            return ProxyHeader(None, 0)
        try:
            header = parse_proxy_header(bytes(self._received))
        except ProxyHeaderMalformed as malformed:
            raise Stranger(_malformed(malformed)) from malformed
        if header is not None:
            del self._received[: header.size]
            self.has_spoken = bool(self._received)
        return header

    def head(self) -> tuple[RequestHead, int] | None:
        """The request head and its size in bytes, which stay; None while more must come.

        Raises `HandshakeRefused` with the reason `head_too_large`, `request_malformed` or
        `http_version`.
        """
        end = find_end(self._received, self._searched)
        self._searched = len(self._received)
        if (end or self._searched) > self._head_bytes:
            raise head_too_large(self._head_bytes)
        return None if end is None else (parse_request_head(bytes(self._received[:end])), end)

    def hand_over(self) -> bytes:
        """All that has come, for whoever goes on with the stream; nothing is kept."""
        received = bytes(self._received)
        self._received.clear()
        self._searched = 0
        return received

    @property
    def _first(self) -> bytes:
        return bytes(self._received[: dialect.TELLING_BYTES])


def head_too_large(limit: int) -> HandshakeRefused:
    """The refusal of a request head of more than `limit` bytes."""
    return HandshakeRefused(
        reason="head_too_large",
        status=431,
        error="request_header_fields_too_large",
        message_zh=f"请求头超过 {limit} 字节",
        message_en=f"the request head is larger than {limit} bytes",
        fix="send fewer or shorter headers, or raise [limits] head_bytes",
    )


def _malformed(malformed: ProxyHeaderMalformed) -> dialect.Dialect:
    return dialect.Dialect(
        "PROXY protocol",
        "proxy_header_malformed",
        f"the PROXY header cannot be read: {malformed}",
        "let the trusted load balancer send the PROXY protocol in version 1 or 2",
    )
