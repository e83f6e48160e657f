"""Who is there: every connection leaves the doorway admitted, answered or told why not."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.answers import plain_answer
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.entrance import Entrance, Stranger
from xiaozhi_trio.gateway.refusal import (
    refuse_over_http,
    refuse_over_websocket,
    send_answer,
)
from xiaozhi_trio.gateway.transport import PeerLeft
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.wire.handshake import Handshake, parse_handshake
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.upgrade import check_upgrade, wants_upgrade

if TYPE_CHECKING:
    from xiaozhi_trio.wire.request_head import RequestHead


@attrs.frozen(kw_only=True)
class Admission:
    """A peer that may come in, before it has been answered."""

    handshake: Handshake
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
    counters: Counters
    health: Callable[[], Mapping[str, Any]]
    """What `/health` tells, as JSON."""
    tls: ssl.SSLContext | None = None

    async def admit(self, stream: trio.abc.Stream) -> Admission | None:
        """The admission of a peer; None where it has been dealt with.

        Each refusal is one line in the log, one counter, and the same words to the peer.
        """
        entrance = Entrance(stream, tls=self.tls, head_bytes=self.limits.head_bytes)
        try:
            with trio.fail_after(self.limits.handshake_seconds):
                head, received = await entrance.read_head()
            if wants_upgrade(head):
                return await self._upgrade(entrance.stream, head, received)
            await self._answer(entrance.stream, head)
        except trio.TooSlowError:
            await self._give_up(entrance)
        except PeerLeft as left:
            # A port probe connects and goes; that is nobody's business.
            level = "INFO" if entrance.has_spoken else "DEBUG"
            logger.bind(reason=str(left)).log(level, "peer left during the handshake")
        except Stranger as stranger:
            self._report(stranger)
        except HandshakeRefused as refusal:
            self.report(refusal)
            await refuse_over_http(entrance.stream, refusal, limits=self.limits)
        return None

    def report(self, refusal: HandshakeRefused) -> None:
        """Log and count a refusal."""
        self.counters.count("handshakes_refused", reason=refusal.reason)
        logger.bind(
            reason=refusal.reason,
            detail=refusal.message_en,
            fix=refusal.fix,
            status=refusal.status,
            browser=refusal.from_browser,
        ).warning("handshake refused")

    async def _upgrade(
        self, stream: trio.abc.Stream, head: RequestHead, received: bytes
    ) -> Admission | None:
        key = check_upgrade(head, self.server.websocket_path)
        try:
            handshake = parse_handshake(head.headers, head.target)
            self.authenticator.check(handshake)
        except HandshakeRefused as refusal:
            if not refusal.from_browser:
                raise
            self.report(refusal)
            await refuse_over_websocket(
                stream, refusal, key=key, received=received, limits=self.limits
            )
            return None
        self.counters.count("handshakes_accepted")
        return Admission(handshake=handshake, stream=stream, key=key, received=received)

    async def _answer(self, stream: trio.abc.Stream, head: RequestHead) -> None:
        answer = plain_answer(
            head, server=self.server, secure=self.tls is not None, health=self.health
        )
        self.counters.count("http_answers", status=str(answer.status))
        logger.bind(method=head.method[:20], status=answer.status).debug("plain HTTP answered")
        await send_answer(stream, answer, method=head.method, limits=self.limits)

    async def _give_up(self, entrance: Entrance) -> None:
        seconds = self.limits.handshake_seconds
        refusal = HandshakeRefused(
            reason="handshake_timeout" if entrance.has_spoken else "silent_peer",
            status=HTTPStatus.REQUEST_TIMEOUT,
            error="request_timeout",
            message_zh=f"{seconds:g} 秒内没有收到完整的请求头",
            message_en=f"no complete request head came within {seconds:g} s",
            fix="look for a network that loses packets, or a scanner; [limits] handshake_seconds "
            "is the time allowed",
        )
        self.report(refusal)
        if not entrance.is_securing:
            await refuse_over_http(entrance.stream, refusal, limits=self.limits)

    def _report(self, stranger: Stranger) -> None:
        dialect = stranger.dialect
        self.counters.count("strangers", reason=dialect.reason)
        logger.bind(
            spoke=dialect.name,
            reason=dialect.reason,
            detail=dialect.explanation,
            fix=dialect.fix,
        ).warning("peer does not speak WebSocket")
