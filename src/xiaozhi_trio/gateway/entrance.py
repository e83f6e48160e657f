"""One accepted stream up to the end of its request head: PROXY header, TLS, first bytes, head."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import trio

from xiaozhi_trio.gateway.transport import PeerLeft, Transport
from xiaozhi_trio.wire import dialect
from xiaozhi_trio.wire.proxy_header import ProxyHeaderMalformed, may_begin, parse_proxy_header
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, find_end, parse_request_head

if TYPE_CHECKING:
    from xiaozhi_trio.wire.endpoint import Endpoint

_RECEIVE_BYTES: Final = 16_384
_TLS_HANDSHAKE_RECORD: Final = b"\x16"
_TELLING_SECONDS: Final = 0.5
"""Time for the rest of the first bytes to come, where the first of them are no HTTP."""


class Stranger(Exception):
    """The peer speaks something that we do not."""

    def __init__(self, what: dialect.Dialect) -> None:
        super().__init__(what.explanation)
        self.dialect = what


class Entrance:
    """Reads one stream until it is known what the peer wants."""

    def __init__(
        self, stream: trio.abc.Stream, *, tls: ssl.SSLContext | None, head_bytes: int
    ) -> None:
        self.stream = stream
        """What to talk over from here: inside TLS once that stands."""
        self.has_spoken = False
        """Whether a single byte of the client has come."""
        self._tls = tls
        self._head_bytes = head_bytes
        self._received = bytearray()

    @property
    def is_securing(self) -> bool:
        """Whether TLS is due and does not stand yet, so that no answer could be read."""
        return self._tls is not None and not isinstance(self.stream, trio.SSLStream)

    async def read_proxy_header(self) -> Endpoint | None:
        """The client, where a PROXY header stands before its own bytes and tells of one.

        To be read of a trusted peer only, before anything else; waits for its first
        bytes. Raises `Stranger` for a header that is malformed, and `PeerLeft`.
        """
        await self._receive()
        while may_begin(bytes(self._received[: dialect.TELLING_BYTES])):
            try:
                header = parse_proxy_header(bytes(self._received))
            except ProxyHeaderMalformed as malformed:
                raise Stranger(_malformed(malformed)) from malformed
            if header is not None:
                del self._received[: header.size]
                self.has_spoken = bool(self._received)
                return header.source
            await self._receive()
        return None

    async def read_head(self) -> tuple[RequestHead, bytes]:
        """The request head, and what the peer has sent behind it.

        Has no time limit of its own. Raises `HandshakeRefused` for a head that is
        malformed or too large, `Stranger` for a peer that speaks something else, and
        `PeerLeft`.
        """
        if self._tls is not None:
            await self._secure(self._tls)
        elif self._received:
            await self._check_dialect()
        searched = 0
        while (end := find_end(self._received, searched)) is None:
            searched = len(self._received)
            if searched > self._head_bytes:
                raise self._too_large()
            await self._receive()
            await self._check_dialect()
        if end > self._head_bytes:
            raise self._too_large()
        head, rest = bytes(self._received[:end]), bytes(self._received[end:])
        return parse_request_head(head), rest

    async def _receive(self) -> None:
        try:
            data = await self.stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise PeerLeft("the connection broke during the handshake") from error
        if not data:
            raise PeerLeft("the peer hung up during the handshake")
        self.has_spoken = True
        self._received += data

    @property
    def _might_be_http(self) -> bool:
        return dialect.might_be_http(bytes(self._received[: dialect.TELLING_BYTES]))

    async def _check_dialect(self) -> None:
        if not self._might_be_http:
            await self._recognise()

    async def _recognise(self) -> None:
        """Raises `Stranger`, with a name for it if a few more bytes allow one."""
        with trio.move_on_after(_TELLING_SECONDS):
            while len(self._received) < dialect.TELLING_BYTES:
                try:
                    await self._receive()
                except PeerLeft:
                    # What has come until then is all there is to judge by.
                    break
        raise Stranger(dialect.recognise(bytes(self._received[: dialect.TELLING_BYTES])))

    async def _secure(self, context: ssl.SSLContext) -> None:
        if not self._received:
            await self._receive()
        if not self._received.startswith(_TLS_HANDSHAKE_RECORD):
            if self._might_be_http:
                # It can read an answer, if not the one it wants.
                self._tls = None
                raise HandshakeRefused(
                    reason="plain_http_on_tls_port",
                    status=400,
                    error="bad_request",
                    message_zh="此端口使用 TLS，请使用 wss:// 或 https://",
                    message_en="plain HTTP came on a port that speaks TLS",
                    fix="use wss:// (or https://) in the address",
                )
            await self._recognise()
        stream = trio.SSLStream(
            Transport(self.stream, bytes(self._received)),
            context,
            server_side=True,
            https_compatible=True,
        )
        self._received.clear()
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            raise Stranger(_tls_failure(error.__cause__)) from error
        self.stream = stream

    def _too_large(self) -> HandshakeRefused:
        return HandshakeRefused(
            reason="head_too_large",
            status=431,
            error="request_header_fields_too_large",
            message_zh=f"请求头超过 {self._head_bytes} 字节",
            message_en=f"the request head is larger than {self._head_bytes} bytes",
            fix="send fewer or shorter headers, or raise [limits] head_bytes",
        )


def _malformed(malformed: ProxyHeaderMalformed) -> dialect.Dialect:
    return dialect.Dialect(
        "PROXY protocol",
        "proxy_header_malformed",
        f"the PROXY header cannot be read: {malformed}",
        "let the trusted load balancer send the PROXY protocol in version 1 or 2",
    )


def _tls_failure(cause: BaseException | None) -> dialect.Dialect:
    # The library's word for it, such as TLSV1_ALERT_UNKNOWN_CA; none of it is the peer's text.
    word = "the peer hung up"
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        word = str(cause.reason)
    return dialect.Dialect(
        "TLS",
        "tls_handshake_failed",
        f"the TLS handshake failed: {word}",
        "firmware accepts certificates of public authorities only, for the very host name in "
        "its address",
    )
