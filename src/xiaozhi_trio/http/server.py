"""The HTTP port: listening, admission, the guard and the drain.

In Hypercorn's own worker an exception out of one connection ends every connection and the
process, so each connection is run here inside a guard that logs and counts it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper
from hypercorn.utils import wrap_app
from loguru import logger

from xiaozhi_trio.hangup import hang_up
from xiaozhi_trio.http.connection import hypercorn_config, serve_connection
from xiaozhi_trio.http.entrance import Entrance
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.listener import accept_forever, open_listeners
from xiaozhi_trio.telemetry.report import shown
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.seats import Seat, Seats, too_many_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp

    from xiaozhi_trio.http.entrance import Visitor
    from xiaozhi_trio.wire.refusal import HandshakeRefused

_TURNED_AWAY_AT_ONCE: Final = 100
"""Peers beyond a connection limit that are told so at a time; further ones are just closed."""
_LONGEST_REASON: Final = 200


async def serve_http(
    app: ASGIApp,
    services: HttpServices,
    *,
    shutdown: trio.Event,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on the HTTP port until `shutdown` is set; reports the bound port when it listens.

    After `shutdown` no connection is accepted, idle ones are closed, and requests in
    progress have `server.drain_seconds` to end. Counts `http_connections`,
    `http_connections_ended` and `http_connection_failures`, and with the words of the
    WebSocket port `handshakes_refused` and `strangers`. Raises `CannotListen`.
    """
    server = services.settings.server
    listeners = await open_listeners(server.host, server.http_port, setting="http_port")
    port: int = listeners[0].socket.getsockname()[1]
    guard = _Guard(services, wrap_app(cast("ASGIFramework", app), 0, "asgi"))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(accept_forever, listener, partial(guard.welcome, connections))
            accepting.start_soon(services.reporter.tell_left_out)
            task_status.started(port)
            await shutdown.wait()
            accepting.cancel_scope.cancel()
        await guard.drain()
        connections.cancel_scope.deadline = trio.current_time() + server.drain_seconds


@attrs.define(eq=False)
class _Guard:
    """Runs each connection so that its failure is its own."""

    services: HttpServices
    app: AppWrapper
    config: Config = attrs.field(init=False)
    context: WorkerContext = attrs.field(factory=lambda: WorkerContext(None), init=False)
    _entrance: Entrance = attrs.field(init=False)
    _seats: Seats = attrs.field(init=False)
    _open: int = attrs.field(default=0, init=False)
    _turned_away: int = attrs.field(default=0, init=False)
    _at_the_door: set[trio.CancelScope] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.services.settings
        trusted = TrustedNetworks(settings.server.trusted_proxies)
        self.config = hypercorn_config(settings.limits)
        self._seats = Seats(settings.limits.connections_per_address, trusted)
        self._entrance = Entrance(
            limits=settings.limits, reporter=self.services.reporter, trusted=trusted
        )

    async def drain(self) -> None:
        """Let go of peers that have not asked for anything yet, and of idle ones."""
        await self.context.terminated.set()
        for scope in self._at_the_door:
            scope.cancel()

    def welcome(self, connections: trio.Nursery, stream: trio.SocketStream) -> None:
        """Begin to serve a connection that was accepted just now."""
        connections.start_soon(self.handle, stream)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection to its end; raises nothing but cancellation."""
        counters, peer = self.services.counters, _peer_of(stream)
        counters.count("http_connections")
        with logger.contextualize(peer=shown(peer)):
            try:
                await self._attend(stream, peer)
            except* (OSError, trio.BrokenResourceError) as failures:
                logger.bind(reason=_reasons(failures)).debug("http peer gone")
            except* Exception as failures:  # noqa: BLE001 - the guard of the HTTP connections
                counters.count("http_connection_failures")
                self.services.reporter.tell(
                    "WARNING",
                    "http connection failed",
                    peer,
                    reason="http_connection_failed",
                    detail=_reasons(failures),
                )
            finally:
                await trio.aclose_forcefully(stream)
                counters.count("http_connections_ended")

    async def _attend(self, stream: trio.SocketStream, peer: Endpoint | None) -> None:
        refusal = self._want_of_room(peer)
        if refusal is not None:
            await self._turn_away(stream, peer, refusal)
            return
        self._open += 1
        try:
            with self._seats.one() as seat:
                visitor = await self._admit(stream, peer, seat)
                if visitor is None:
                    await hang_up(stream)
                else:
                    await self._serve(stream, visitor)
        finally:
            self._open -= 1

    def _want_of_room(self, peer: Endpoint | None) -> HandshakeRefused | None:
        limit = self.services.settings.limits.connections
        if self._open >= limit:
            return too_many_connections(limit)
        return self._seats.refusal() if self._seats.are_taken(peer) else None

    async def _turn_away(
        self, stream: trio.SocketStream, peer: Endpoint | None, refusal: HandshakeRefused
    ) -> None:
        if self._turned_away >= _TURNED_AWAY_AT_ONCE:
            self.services.counters.count("handshakes_refused", reason=refusal.reason)
            return
        self._turned_away += 1
        try:
            await self._entrance.refuse(stream, peer, refusal)
            await hang_up(stream)
        finally:
            self._turned_away -= 1

    async def _admit(
        self, stream: trio.SocketStream, peer: Endpoint | None, seat: Seat
    ) -> Visitor | None:
        with trio.CancelScope() as at_the_door:
            self._at_the_door.add(at_the_door)
            if self.context.terminated.is_set():
                at_the_door.cancel()
            try:
                return await self._entrance.admit(stream, peer, seat)
            finally:
                self._at_the_door.discard(at_the_door)
        return None

    async def _serve(self, stream: trio.SocketStream, visitor: Visitor) -> None:
        with logger.contextualize(peer=shown(visitor.endpoint)):
            await serve_connection(
                stream,
                visitor,
                app=self.app,
                config=self.config,
                context=self.context,
                services=self.services,
            )


def _peer_of(stream: trio.SocketStream) -> Endpoint | None:
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        # It has gone already; reading will tell.
        return None
    return Endpoint.of(host, port)


def _reasons(group: BaseExceptionGroup[BaseException]) -> str:
    reasons = "; ".join(f"{type(each).__name__}: {each}" for each in _leaves(group))
    return reasons[:_LONGEST_REASON]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
