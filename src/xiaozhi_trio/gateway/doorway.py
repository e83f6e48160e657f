"""Who is there: every connection leaves the doorway admitted, answered or told why not."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.answers import plain_answer
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.entrance import Entrance
from xiaozhi_trio.gateway.refusal import (
    refuse_over_http,
    refuse_over_websocket,
    send_answer,
)
from xiaozhi_trio.telemetry.report import Reporter
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.forwarded import client_of, said_secure
from xiaozhi_trio.wire.handshake import Handshake, parse_handshake
from xiaozhi_trio.wire.opening import PeerLeft, Stranger
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.upgrade import check_upgrade, wants_upgrade

if TYPE_CHECKING:
    from xiaozhi_trio.wire.request_head import RequestHead
    from xiaozhi_trio.wire.seats import Seat


@attrs.frozen(kw_only=True)
class Admission:
    """A peer that may come in, before it has been answered."""

    handshake: Handshake
    peer: Endpoint | None
    """The client itself, not the trusted proxy in between; None where that is not known."""
    stream: trio.abc.Stream
    """What to talk over: inside TLS where there is TLS."""
    key: bytes = attrs.field(repr=False)
    """Its `Sec-WebSocket-Key`."""
    received: bytes = attrs.field(repr=False)
    """What it has sent behind its request head."""


@attrs.frozen(kw_only=True)
class Doorway:
    """Finds out what a peer speaks and wants."""

    server: ServerSettings
    limits: LimitSettings
    authenticator: Authenticator
    reporter: Reporter
    trusted: TrustedNetworks
    health: Callable[[], Mapping[str, Any]]
    """What `/health` tells, as JSON."""
    tls: ssl.SSLContext | None = None

    async def admit(
        self, stream: trio.abc.Stream, peer: Endpoint | None, seat: Seat
    ) -> Admission | None:
        """The admission of a peer; None where it has been dealt with.

        `peer` is the other end of the socket, None where that is not known. The seat
        is taken in the name of the client. Each refusal is one counter, a line in the
        log, and the same words to the peer.
        """
        entrance = Entrance(stream, tls=self.tls, head_bytes=self.limits.head_bytes)
        secure = self.tls is not None
        try:
            with trio.move_on_after(self.limits.handshake_seconds) as patience:
                seat.take(peer)
                if peer in self.trusted:
                    peer = await entrance.read_proxy_header() or peer
                    seat.take(peer)
                head, received = await entrance.read_head()
            if patience.cancelled_caught:
                raise entrance.overdue(self.limits.handshake_seconds)
            if peer is not None and peer in self.trusted:
                said = said_secure(head)
                secure = secure if said is None else said
                peer = client_of(head, peer, self.trusted)
                seat.take(peer)
            if wants_upgrade(head):
                return await self._upgrade(entrance.stream, peer, head, received)
            await self._answer(entrance.stream, head, secure=secure)
        except PeerLeft as left:
            self.reporter.left(str(left), peer, has_spoken=entrance.has_spoken)
        except Stranger as stranger:
            self.reporter.stranger(stranger.dialect, peer)
        except HandshakeRefused as refusal:
            self.reporter.refused(refusal, peer)
            if not entrance.is_securing:
                await refuse_over_http(entrance.stream, refusal, limits=self.limits)
        return None

    async def _upgrade(
        self, stream: trio.abc.Stream, peer: Endpoint | None, head: RequestHead, received: bytes
    ) -> Admission | None:
        key = check_upgrade(head, self.server.websocket_path)
        try:
            handshake = parse_handshake(head.headers, head.target)
            self.authenticator.check(handshake)
        except HandshakeRefused as refusal:
            if not refusal.from_browser:
                raise
            self.reporter.refused(refusal, peer)
            await refuse_over_websocket(
                stream, refusal, key=key, received=received, limits=self.limits
            )
            return None
        self.reporter.counters.count("handshakes_accepted")
        return Admission(handshake=handshake, peer=peer, stream=stream, key=key, received=received)

    async def _answer(self, stream: trio.abc.Stream, head: RequestHead, *, secure: bool) -> None:
        answer = plain_answer(head, server=self.server, secure=secure, health=self.health)
        self.reporter.counters.count("http_answers", status=str(answer.status))
        logger.bind(method=head.method[:20], status=answer.status).debug("plain HTTP answered")
        await send_answer(stream, answer, method=head.method, limits=self.limits)
