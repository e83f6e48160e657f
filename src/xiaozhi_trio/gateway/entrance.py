"""One accepted stream up to the end of its request head: PROXY header, TLS, first bytes, head."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import trio

from xiaozhi_trio.gateway.transport import Transport
from xiaozhi_trio.wire.dialect import Dialect
from xiaozhi_trio.wire.opening import TELLING_SECONDS, Opening, PeerLeft, Stranger
from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from xiaozhi_trio.wire.endpoint import Endpoint
    from xiaozhi_trio.wire.request_head import RequestHead

_RECEIVE_BYTES: Final = 16_384


class Entrance:
    """Reads one stream until it is known what the peer wants."""

    def __init__(
        self, stream: trio.abc.Stream, *, tls: ssl.SSLContext | None, head_bytes: int
    ) -> None:
        self.stream = stream
        """What to talk over from here: inside TLS once that stands."""
        self._tls = tls
        self._opening = Opening(head_bytes=head_bytes)

    @property
    def has_spoken(self) -> bool:
        """Whether a single byte of the client has come."""
        return self._opening.has_spoken

    @property
    def is_securing(self) -> bool:
        """Whether TLS is due and does not stand yet, so that no answer could be read."""
        return self._tls is not None and not isinstance(self.stream, trio.SSLStream)

    def overdue(self, seconds: float) -> Stranger | HandshakeRefused:
        """What to raise where no request head has come within so many seconds."""
        return self._opening.overdue(seconds)

    async def read_proxy_header(self) -> Endpoint | None:
        """The client, where a PROXY header stands before its own bytes and tells of one.

        To be read of a trusted peer only, before anything else; waits for its first
        bytes. Raises `Stranger` for a header that is malformed, and `PeerLeft`.
        """
        while (header := self._opening.proxy_header()) is None:
            await self._receive()
        return header.source

    async def read_head(self) -> tuple[RequestHead, bytes]:
        """The request head, and what the peer has sent behind it.

        Has no time limit of its own. Raises `HandshakeRefused` for a head that is
        malformed or too large, `Stranger` for a peer that speaks something else, and
        `PeerLeft`.
        """
        if self._tls is not None:
            await self._secure(self._tls)
        while True:
            if self._opening.is_strange:
                await self._recognise()
            found = self._opening.head()
            if found is not None:
                head, size = found
                return head, self._opening.hand_over()[size:]
            await self._receive()

    async def _receive(self) -> None:
        try:
            data = await self.stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as error:
            raise PeerLeft("the connection broke during the handshake") from error
        self._opening.take(data)

    async def _recognise(self) -> None:
        """Raises `Stranger`, with a name for it if a few more bytes allow one."""
        with trio.move_on_after(TELLING_SECONDS):
            while not self._opening.is_telling:
                try:
                    await self._receive()
                except PeerLeft:
                    # What has come until then is all there is to judge by.
                    break
        raise self._opening.stranger()

    async def _secure(self, context: ssl.SSLContext) -> None:
        if self._opening.is_silent:
            await self._receive()
        if not self._opening.is_tls:
            if self._opening.is_strange:
                await self._recognise()
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
        stream = trio.SSLStream(
            Transport(self.stream, self._opening.hand_over()),
            context,
            server_side=True,
            https_compatible=True,
        )
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            raise Stranger(_tls_failure(error.__cause__)) from error
        self.stream = stream


def _tls_failure(cause: BaseException | None) -> Dialect:
    # The library's word for it, such as TLSV1_ALERT_UNKNOWN_CA; none of it is the peer's text.
    word = "the peer hung up"
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        word = str(cause.reason)
    return Dialect(
        "TLS",
        "tls_handshake_failed",
        f"the TLS handshake failed: {word}",
        "firmware accepts certificates of public authorities only, for the very host name in "
        "its address",
    )
