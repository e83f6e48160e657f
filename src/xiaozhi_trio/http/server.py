"""The HTTP port: Hypercorn's protocol code behind an accept loop that no packet can end.

Hypercorn 0.18 lets several inputs escape as exceptions out of a connection: bytes
outside ASCII in the `Connection` header or the WebSocket ones, and others that a
scanner may send. In its own worker one of them ends every connection and the process,
so each connection is run here inside a guard that logs and counts it. What else it
leaves open is bounded here too: the number of connections, the time of a request, and
a peer that stops reading, for whom Hypercorn waits in a send that is shielded from
cancellation.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs
import orjson
import trio
from hypercorn.config import Config
from hypercorn.events import Updated
from hypercorn.logging import Logger
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr, wrap_app
from loguru import logger

from xiaozhi_trio.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h11
    from hypercorn.events import Event
    from hypercorn.protocol import ProtocolWrapper
    from hypercorn.typing import ASGIFramework, ResponseSummary, WWWScope
    from starlette.types import ASGIApp

    from xiaozhi_trio.config.settings import Settings

REQUEST_SECONDS = 60.0
"""Longest time from the end of one request to the end of the next on a connection; the firmware
gives up after 30 s."""
_REFUSAL_SECONDS = 1.0
_MAX_REASON_LENGTH = 200


class HttpListenError(Exception):
    """The HTTP port cannot be listened on; the message says what to change."""


async def serve_http(
    app: ASGIApp,
    settings: Settings,
    *,
    shutdown: trio.Event,
    counters: Counters | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on the HTTP port until `shutdown` is set; reports the bound port when it listens.

    After `shutdown` no connection is accepted, idle ones are closed, and requests in
    progress have `server.drain_seconds` to end. Counts `http_connections`,
    `http_connections_ended`, `http_connections_refused` and `http_connection_failures`.
    Raises `HttpListenError` where the port cannot be bound.
    """
    listeners = await _open_listeners(settings.server.host, settings.server.http_port)
    port: int = listeners[0].socket.getsockname()[1]
    guard = _Guard(
        app=wrap_app(cast("ASGIFramework", app), 0, "asgi"),
        config=_hypercorn_config(settings),
        context=WorkerContext(None),
        limit=settings.limits.connections,
        counters=counters if counters is not None else Counters(),
    )
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, guard.handle, listeners, handler_nursery=connections)
            )
            task_status.started(port)
            await shutdown.wait()
            accepting.cancel_scope.cancel()
        await guard.context.terminated.set()
        connections.cancel_scope.deadline = trio.current_time() + settings.server.drain_seconds


async def _open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = "another program listens there; stop it or set server.http_port to a free port"
        elif error.errno in {errno.EACCES, errno.EPERM}:
            advice = "ports below 1024 need privileges; set server.http_port to 1024 or above"
        else:
            advice = "set server.host to an address of this machine, or to 0.0.0.0 for all"
        raise HttpListenError(
            f"cannot listen for HTTP on {host} port {port} ({error.strerror or error}): {advice}"
        ) from error
    if port == 0:
        # Each address would have a free port of its own, and only one can be told.
        for listener in listeners[1:]:
            await listener.aclose()
        return listeners[:1]
    return listeners


def _hypercorn_config(settings: Settings) -> Config:
    config = Config()
    config.logger_class = _HypercornLog
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = settings.limits.head_bytes
    # Covers the wait for a request head as well as the pause between two requests.
    config.keep_alive_timeout = settings.limits.handshake_seconds
    return config


@attrs.define(kw_only=True)
class _Guard:
    """Runs each connection so that its failure is its own."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    limit: int
    counters: Counters
    _open: int = attrs.field(default=0, init=False)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection to its end; raises nothing but cancellation."""
        self.counters.count("http_connections")
        peer = _peer(stream)
        try:
            if self._open >= self.limit:
                self.counters.count("http_connections_refused", reason="too_many_connections")
                logger.bind(reason="too_many_connections", peer=peer).warning(
                    "http connection refused"
                )
                await _refuse(stream)
                return
            self._open += 1
            try:
                await self._serve(stream)
            finally:
                self._open -= 1
        except* (OSError, trio.BrokenResourceError) as failures:
            logger.bind(reason=_reasons(failures), peer=peer).debug("http peer gone")
        except* Exception as failures:  # noqa: BLE001 - the guard of the HTTP connections
            self.counters.count("http_connection_failures")
            logger.bind(reason=_reasons(failures), peer=peer).warning("http connection failed")
        finally:
            self.counters.count("http_connections_ended")

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_close_when_cancelled, stream)
            connection = _Connection(
                self.app,
                self.config,
                self.context,
                ConnectionState({}),
                # Annotated for TLS; a plain stream is told apart by what it lacks.
                cast("trio.SSLStream[trio.SocketStream]", stream),
            )
            connection.scope = nursery.cancel_scope
            await connection.run()
            nursery.cancel_scope.cancel()


class _Http11(H11Protocol):
    """HTTP/1.1 and nothing else: no client needs HTTP/2, so none of its code is within reach."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Leave an offer of HTTP/2 unanswered, as HTTP/1.1 allows."""


class _Connection(TCPServer):
    """Hypercorn's connection with a bound on each request, that ends when the peer has ended it."""

    scope: trio.CancelScope

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        self._restart_clock()
        transport = self.stream.socket
        try:
            client = parse_socket_addr(transport.family, transport.getpeername())
            own = parse_socket_addr(transport.family, transport.getsockname())
            async with TaskGroup() as tasks:
                self._task_group = tasks
                self.protocol = cast(
                    "ProtocolWrapper",
                    _Http11(
                        self.app,
                        self.config,
                        self.context,
                        tasks,
                        ConnectionState(self.state),
                        ssl=False,
                        client=client,
                        server=own,
                        send=self.protocol_send,
                    ),
                )
                await self.idle_task.restart(tasks, self._idle_timeout)
                await self._read_data()
                # The peer sends no more: waiting for its next request would keep the socket.
                await self.idle_task.stop()
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Note where requests begin and end."""
        if isinstance(event, Updated):
            self._restart_clock()
        await super().protocol_send(event)

    def _restart_clock(self) -> None:
        self.scope.deadline = trio.current_time() + REQUEST_SECONDS


async def _close_when_cancelled(stream: trio.SocketStream) -> None:
    """Wake a send that is shielded from cancellation: closing the socket under it does."""
    try:
        await trio.sleep_forever()
    finally:
        await trio.aclose_forcefully(stream)


async def _refuse(stream: trio.SocketStream) -> None:
    body = orjson.dumps(
        {
            "success": False,
            "error": "too_many_connections",
            "message": "The server has too many connections; try again later. "
            "服务器连接数已满，请稍后再试。",
        }
    )
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 10\r\nConnection: close\r\n\r\n"
    )
    async with stream:
        with trio.move_on_after(_REFUSAL_SECONDS):
            await stream.send_all(head.encode() + body)


def _peer(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        # A peer that has reset the connection has no address any more.
        return "gone"


def _reasons(group: BaseExceptionGroup[BaseException]) -> str:
    reasons = "; ".join(f"{type(each).__name__}: {each}" for each in _leaves(group))
    return reasons[:_MAX_REASON_LENGTH]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


class _HypercornLog(Logger):
    """The two lines that Hypercorn's connections log, sent to the log of the server."""

    async def access(
        self, request: WWWScope, response: ResponseSummary | None, request_time: float
    ) -> None:
        """One line for each request; `response` is None where the peer left before it."""
        logger.bind(
            peer=(request.get("client") or ("",))[0],
            method=request.get("method", "WEBSOCKET"),
            path=request["path"][:_MAX_REASON_LENGTH],
            status=response["status"] if response is not None else None,
            milliseconds=round(request_time * 1000),
        ).debug("http request answered")

    async def exception(self, message: str, *args: Any, **_kwargs: Any) -> None:
        """Pass the exception in progress on: the application answers its own, so this is rare."""
        logger.opt(exception=True).bind(reason=message % args).error("hypercorn failed")
