"""A peer of the HTTP port up to the end of its first request head: let in, or told why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings
from xiaozhi_trio.http.errors import refusal_answer
from xiaozhi_trio.telemetry.report import Reporter
from xiaozhi_trio.wire import dialect
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.opening import TELLING_SECONDS, Opening, PeerLeft, Stranger
from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from xiaozhi_trio.wire.seats import Seat

_RECEIVE_BYTES: Final = 16_384
_BLANK: Final = b"\r\n"


@attrs.frozen
class Visitor:
    """A peer that speaks HTTP."""

    endpoint: Endpoint | None
    """The client itself where a trusted load balancer tells of it; None where it is not known."""
    received: bytes = attrs.field(repr=False)
    """A whole request head that can be read, and what was sent behind it."""


@attrs.frozen(kw_only=True)
class Entrance:
    """Finds out what a peer speaks before the HTTP server is shown any of it."""

    limits: LimitSettings
    reporter: Reporter
    trusted: TrustedNetworks

    async def admit(
        self, stream: trio.abc.Stream, peer: Endpoint | None, seat: Seat
    ) -> Visitor | None:
        """The peer as it came in; None where it has been dealt with.

        `peer` is the other end of the socket. The seat is taken in the name of the
        client. Each refusal is one counter, a line in the log, and the same words to
        the peer.
        """
        opening = Opening(head_bytes=self.limits.head_bytes)
        try:
            with trio.move_on_after(self.limits.handshake_seconds):
                seat.take(peer)
                if peer in self.trusted:
                    peer = await _read_proxy_header(stream, opening) or peer
                    seat.take(peer)
                return Visitor(peer, await _read_head(stream, opening))
            raise opening.overdue(self.limits.handshake_seconds)
        except HandshakeRefused as refusal:
            await self.refuse(stream, peer, refusal)
        except PeerLeft as left:
            self.reporter.left(str(left), peer, has_spoken=opening.has_spoken)
        except Stranger as stranger:
            spoken = stranger.dialect
            # No setting gives this port TLS.
            self.reporter.stranger(
                dialect.TLS_WITHOUT_CERTIFICATE if spoken is dialect.TLS else spoken, peer
            )
        return None

    async def refuse(
        self, stream: trio.abc.Stream, peer: Endpoint | None, refusal: HandshakeRefused
    ) -> None:
        """Tell the peer, the log and the counters; takes at most `limits.send_seconds`."""
        self.reporter.refused(refusal, peer)
        with trio.move_on_after(self.limits.send_seconds):
            try:
                await stream.send_all(refusal_answer(refusal).encode())
            except trio.BrokenResourceError:
                logger.debug("peer left before its answer")


async def _read_proxy_header(stream: trio.abc.Stream, opening: Opening) -> Endpoint | None:
    while (header := opening.proxy_header()) is None:
        await _receive(stream, opening)
    return header.source


async def _read_head(stream: trio.abc.Stream, opening: Opening) -> bytes:
    while not opening.is_strange:
        if opening.head() is not None:
            # h11 takes no empty line before the request line, which RFC 9112 (2.2) allows.
            return opening.hand_over().lstrip(_BLANK)
        await _receive(stream, opening)
    with trio.move_on_after(TELLING_SECONDS):
        while not opening.is_telling:
            try:
                await _receive(stream, opening)
            except PeerLeft:
                # What has come until then is all there is to judge by.
                break
    raise opening.stranger()


async def _receive(stream: trio.abc.Stream, opening: Opening) -> None:
    try:
        data = await stream.receive_some(_RECEIVE_BYTES)
    except trio.BrokenResourceError as error:
        raise PeerLeft("the connection broke during the handshake") from error
    opening.take(data)
