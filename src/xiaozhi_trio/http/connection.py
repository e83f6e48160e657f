"""One connection of the HTTP port: Hypercorn's HTTP/1.1, bounded and with reasons.

Hypercorn 0.18 lets several inputs escape as exceptions out of a connection, most of them in
its WebSocket and HTTP/2 code, so none of that is within reach here. What else it leaves open
is bounded: the time of a request, and a peer that stops reading, for whom Hypercorn waits in
a send that is shielded from cancellation. What h11 cannot read is answered with a reason.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr
from loguru import logger
from starlette.requests import HTTPConnection

from xiaozhi_trio.hangup import hang_up
from xiaozhi_trio.http.advertise import Approach, websocket_url
from xiaozhi_trio.http.errors import refusal_answer
from xiaozhi_trio.telemetry.report import shown
from xiaozhi_trio.wire.endpoint import Endpoint
from xiaozhi_trio.wire.opening import head_too_large
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, malformed_request
from xiaozhi_trio.wire.upgrade import wants_upgrade

if TYPE_CHECKING:
    from hypercorn.events import Event
    from hypercorn.protocol import ProtocolWrapper
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ResponseSummary, WWWScope

    from xiaozhi_trio.config.settings import LimitSettings
    from xiaozhi_trio.http.entrance import Visitor
    from xiaozhi_trio.http.services import HttpServices

REQUEST_SECONDS = 60.0
"""Longest time from the end of one request to the end of the next on a connection; the firmware
gives up after 30 s."""
_LONGEST_PATH: Final = 200
"""Characters of a path in the log."""
_HEADER_FIELDS_TOO_LARGE: Final = 431


def hypercorn_config(limits: LimitSettings) -> Config:
    """What Hypercorn is to do: nothing but HTTP/1.1 within these limits, and no log of its own."""
    config = Config()
    config.logger_class = _HypercornLog
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes
    # The pause between two requests.
    config.keep_alive_timeout = limits.handshake_seconds
    return config


async def serve_connection(
    stream: trio.SocketStream,
    visitor: Visitor,
    *,
    app: AppWrapper,
    config: Config,
    context: WorkerContext,
    services: HttpServices,
) -> None:
    """Answer the requests of one peer until either side ends the connection."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_when_cancelled, stream)
        connection = _Connection(
            app,
            config,
            context,
            ConnectionState({}),
            # Annotated for TLS; a plain stream is told apart by what it lacks.
            cast("trio.SSLStream[trio.SocketStream]", stream),
        )
        connection.scope = nursery.cancel_scope
        connection.visitor = visitor
        connection.services = services
        await connection.run()
        nursery.cancel_scope.cancel()


class _Http11(H11Protocol):
    """HTTP/1.1 and nothing else: no client of this port needs HTTP/2 or a WebSocket."""

    services: HttpServices
    peer: Endpoint | None

    async def _check_protocol(self, event: h11.Request) -> None:
        """Leave an offer of HTTP/2 unanswered, as HTTP/1.1 allows."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Begin to serve a request, or tell a WebSocket client where it belongs."""
        method, headers = request.method.decode("ascii"), list(request.headers)
        if not wants_upgrade(RequestHead(method, request.target, tuple(headers))):
            await super()._create_stream(request)
            return
        scope = {"type": "http", "headers": headers, "server": self.server}
        url = websocket_url(
            self.services.settings.server,
            port=self.services.websocket_port(),
            approach=Approach.of(HTTPConnection(scope)),
            lan=self.services.lan,
        )
        await self._refuse(_wrong_port(url), method)
        await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what h11 cannot read."""
        if status_code == _HEADER_FIELDS_TOO_LARGE:
            refusal = head_too_large(self.services.settings.limits.head_bytes)
        else:
            refusal = malformed_request(
                "the request breaks the rules of HTTP/1.1, for example by having no Host"
            )
        await self._refuse(refusal)

    async def _refuse(self, refusal: HandshakeRefused, method: str = "GET") -> None:
        self.services.reporter.refused(refusal, self.peer)
        answer = refusal_answer(refusal)
        events = (
            h11.Response(
                status_code=answer.status, headers=answer.fields, reason=answer.phrase.encode()
            ),
            h11.Data(data=b"" if method == "HEAD" else answer.body),
            h11.EndOfMessage(),
        )
        # In one piece: where the request had begun, the application may be answering it.
        await self.send(RawData(b"".join([self.connection.send(event) for event in events])))


class _Connection(TCPServer):
    """Hypercorn's connection with a bound on each request, that ends when the peer has ended it."""

    scope: trio.CancelScope
    visitor: Visitor
    services: HttpServices

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        self._restart_clock()
        try:
            async with TaskGroup() as tasks:
                self._task_group = tasks
                protocol = self._protocol(tasks)
                self.protocol = cast("ProtocolWrapper", protocol)
                await self.idle_task.restart(tasks, self._idle_timeout)
                await protocol.handle(RawData(self.visitor.received))
                await self._read_data()
                # The peer sends no more: waiting for its next request would keep the socket.
                await self.idle_task.stop()
        finally:
            await self._close()

    def _protocol(self, tasks: TaskGroup) -> _Http11:
        transport, client = self.stream.socket, self.visitor.endpoint
        protocol = _Http11(
            self.app,
            self.config,
            self.context,
            tasks,
            ConnectionState(self.state),
            ssl=False,
            client=None if client is None else (str(client.address), client.port or 0),
            server=parse_socket_addr(transport.family, transport.getsockname()),
            send=self.protocol_send,
        )
        protocol.services, protocol.peer = self.services, client
        return protocol

    async def protocol_send(self, event: Event) -> None:
        """Note where requests begin and end."""
        if isinstance(event, Updated):
            self._restart_clock()
        await super().protocol_send(event)

    def _restart_clock(self) -> None:
        self.scope.deadline = trio.current_time() + REQUEST_SECONDS

    async def _close(self) -> None:
        # Busy where the task that reads is waiting for the peer; its wait ends with the close.
        with suppress(trio.BusyResourceError):
            await hang_up(self.stream)


async def _close_when_cancelled(stream: trio.SocketStream) -> None:
    """Wake a send that is shielded from cancellation: closing the socket under it does."""
    try:
        await trio.sleep_forever()
    finally:
        await trio.aclose_forcefully(stream)


def _wrong_port(url: str) -> HandshakeRefused:
    return HandshakeRefused(
        reason="wrong_port",
        status=404,
        error="not_found",
        message_zh=f"这是 HTTP 端口，WebSocket 地址是 {url}",
        message_en=f"this is the HTTP port; the WebSocket address is {url}",
        fix=f"connect to {url}",
    )


class _HypercornLog(Logger):
    """The two lines that Hypercorn's connections log, sent to the log of the server."""

    async def access(
        self, request: WWWScope, response: ResponseSummary | None, request_time: float
    ) -> None:
        """One line for each request; `response` is None where the peer left before it."""
        client = request.get("client")
        logger.bind(
            peer=shown(None if client is None else Endpoint.of(client[0], client[1] or None)),
            method=request.get("method"),
            path=request["path"][:_LONGEST_PATH],
            status=response["status"] if response is not None else None,
            milliseconds=round(request_time * 1000),
        ).debug("http request answered")

    async def exception(self, message: str, *args: Any, **_kwargs: Any) -> None:
        """Pass the exception in progress on: the application answers its own, so this is rare."""
        logger.opt(exception=True).bind(reason=message % args).error("hypercorn failed")
