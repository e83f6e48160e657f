"""The gateway: every connection from the accept to its end, and the drain."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.connection import SERVER_SHUTDOWN, Reception, SessionFactory
from xiaozhi_trio.gateway.doorway import Admission, Doorway
from xiaozhi_trio.gateway.refusal import refuse_over_http
from xiaozhi_trio.hangup import hang_up
from xiaozhi_trio.listener import accept_forever, open_listeners
from xiaozhi_trio.session.recording import Recorder
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.report import Reporter, shown
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.seats import Seat, Seats, too_many_connections

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from xiaozhi_trio.wire.refusal import HandshakeRefused


_TURNED_AWAY_AT_ONCE: Final = 100
"""Peers beyond the connection limit that are told so at a time; further ones are just closed."""


@attrs.define(kw_only=True, eq=False)
class Gateway:
    """The WebSocket port."""

    server: ServerSettings
    limits: LimitSettings
    authenticator: Authenticator
    sessions: SessionFactory
    roster: Roster
    counters: Counters
    health: Callable[[], Mapping[str, Any]]
    """What `/health` tells, as JSON."""
    tls: ssl.SSLContext | None = None
    """From `load_tls`; None serves ws://."""
    recorder: Recorder | None = None
    """Records every session where there is one."""
    stopping: trio.Event = attrs.field(factory=trio.Event, init=False)
    _doorway: Doorway = attrs.field(init=False)
    _reporter: Reporter = attrs.field(init=False)
    _seats: Seats = attrs.field(init=False)
    _reception: Reception = attrs.field(init=False)
    _connections: int = attrs.field(default=0, init=False)
    _turned_away: int = attrs.field(default=0, init=False)
    _at_the_door: set[trio.CancelScope] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        trusted = TrustedNetworks(self.server.trusted_proxies)
        self._reporter = Reporter(self.counters)
        self._seats = Seats(self.limits.connections_per_address, trusted)
        self._doorway = Doorway(
            server=self.server,
            limits=self.limits,
            authenticator=self.authenticator,
            reporter=self._reporter,
            trusted=trusted,
            health=self.health,
            tls=self.tls,
        )
        self._reception = Reception(
            sessions=self.sessions,
            roster=self.roster,
            reporter=self._reporter,
            counters=self.counters,
            limits=self.limits,
            stopping=self.stopping,
            recorder=self.recorder,
        )

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._connections

    def stop(self) -> None:
        """Begin to drain; `serve` returns once all connections are closed."""
        self.stopping.set()

    async def serve(
        self, *, task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and serve until `stop`, then drain; for `nursery.start`.

        `start` gives the bound addresses. Draining takes no new connection, ends the
        sessions with 1001 and closes what is left after `server.drain_seconds`.
        Raises `CannotListen`.
        """
        listeners = await open_listeners(
            self.server.host, self.server.websocket_port, setting="websocket_port"
        )
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(
                        accept_forever, listener, partial(self._welcome, connections)
                    )
                accepting.start_soon(self._reporter.tell_left_out)
                addresses = [listener.socket.getsockname()[:2] for listener in listeners]
                logger.bind(addresses=addresses, tls=self.tls is not None).info("gateway listens")
                task_status.started(addresses)
                await self.stopping.wait()
                accepting.cancel_scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self.server.drain_seconds
            logger.bind(sessions=len(self.roster)).info("gateway drains")
            for scope in self._at_the_door:
                scope.cancel()
            self.roster.end_all(SERVER_SHUTDOWN)
        if connections.cancel_scope.cancelled_caught:
            logger.bind(seconds=self.server.drain_seconds).warning("drain cut short")

    def _welcome(self, connections: trio.Nursery, stream: trio.SocketStream) -> None:
        peer = _peer_of(stream)
        refusal = self._want_of_room(peer)
        if refusal is None:
            connections.start_soon(self.attend, stream, peer)
        elif self._turned_away < _TURNED_AWAY_AT_ONCE:
            connections.start_soon(self._turn_away, stream, peer, refusal)
        else:
            self.counters.count("handshakes_refused", reason=refusal.reason)
            stream.socket.close()

    def _want_of_room(self, peer: Endpoint | None) -> HandshakeRefused | None:
        if self._connections >= self.limits.connections:
            return too_many_connections(self.limits.connections)
        return self._seats.refusal() if self._seats.are_taken(peer) else None

    async def attend(self, stream: trio.abc.Stream, peer: Endpoint | None) -> None:
        """One connection from its first byte to its end. Nothing it does comes out of here.

        `peer` is the other end, None where it cannot be told any more.
        """
        self._connections += 1
        self.counters.count("connections")
        try:
            await self._guard(partial(self._attend, stream, peer), stream, peer)
        finally:
            self._connections -= 1

    async def _guard(
        self,
        handle: Callable[[], Awaitable[None]],
        stream: trio.abc.Stream,
        peer: Endpoint | None,
    ) -> None:
        with logger.contextualize(peer=shown(peer)):
            try:
                await handle()
            except* Exception as errors:  # noqa: BLE001 - a connection must not hurt another
                self.counters.count("connection_failures")
                logger.opt(exception=errors).error("connection failed")
            finally:
                await hang_up(stream)

    async def _attend(self, stream: trio.abc.Stream, peer: Endpoint | None) -> None:
        with self._seats.one() as seat:
            admission = await self._admit(stream, peer, seat)
            if admission is not None:
                await self._reception.receive(admission)

    async def _admit(
        self, stream: trio.abc.Stream, peer: Endpoint | None, seat: Seat
    ) -> Admission | None:
        with trio.CancelScope() as at_the_door:
            self._at_the_door.add(at_the_door)
            if self.stopping.is_set():
                at_the_door.cancel()
            try:
                return await self._doorway.admit(stream, peer, seat)
            finally:
                self._at_the_door.discard(at_the_door)
        return None

    async def _turn_away(
        self, stream: trio.abc.Stream, peer: Endpoint | None, refusal: HandshakeRefused
    ) -> None:
        self._turned_away += 1
        try:
            await self._guard(partial(self._tell, stream, peer, refusal), stream, peer)
        finally:
            self._turned_away -= 1

    async def _tell(
        self, stream: trio.abc.Stream, peer: Endpoint | None, refusal: HandshakeRefused
    ) -> None:
        self._reporter.refused(refusal, peer)
        # A peer that expects TLS could not read it.
        if self.tls is None:
            await refuse_over_http(stream, refusal, limits=self.limits)


def _peer_of(stream: trio.SocketStream) -> Endpoint | None:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        # It has gone already; reading will tell.
        return None
    return Endpoint.of(host, port)
