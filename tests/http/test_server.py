from __future__ import annotations

import contextlib
import json
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings, Settings
from xiaozhi_trio.http import server as http_server
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import HttpListenError, serve_http
from xiaozhi_trio.telemetry.counters import Counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from xiaozhi_trio.http.services import HttpServices

pytestmark = pytest.mark.sockets

PATIENCE = 20
OTA_REQUEST = (
    b"POST /xiaozhi/ota HTTP/1.1\r\nHost: 192.168.1.5\r\nDevice-Id: aa:bb:cc:dd:ee:ff\r\n"
    b"Client-Id: 6e1f\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}"
)


@attrs.frozen(kw_only=True)
class Running:
    port: int
    counters: Counters
    shutdown: trio.Event
    stopped: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, request: bytes) -> bytes:
        """Send, and read until the server hangs up."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return b"".join([part async for part in stream])

    def counted(self, name: str) -> int:
        return sum(count.value for count in self.counters.snapshot() if count.name == name)

    async def quiet(self) -> None:
        """Wait until no connection is left."""
        with trio.fail_after(5):
            while self.counted("http_connections") > self.counted("http_connections_ended"):
                await trio.lowlevel.checkpoint()


def settings_for_tests(**limits: Any) -> Settings:
    return Settings(
        server=ServerSettings(host="127.0.0.1", http_port=0, drain_seconds=0.2),
        limits=LimitSettings(**limits),
    )


@contextlib.asynccontextmanager
async def running(app: ASGIApp, settings: Settings | None = None) -> AsyncIterator[Running]:
    shutdown, stopped, counters = trio.Event(), trio.Event(), Counters()

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        await serve_http(
            app,
            settings or settings_for_tests(),
            shutdown=shutdown,
            counters=counters,
            task_status=task_status,
        )
        stopped.set()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            port: int = await nursery.start(serve)
            yield Running(port=port, counters=counters, shutdown=shutdown, stopped=stopped)
            shutdown.set()


@pytest.fixture
async def gate(make_services: Callable[..., HttpServices]) -> AsyncIterator[Running]:
    async with running(build_app(make_services())) as server:
        yield server
        assert (await server.exchange(OTA_REQUEST)).startswith(b"HTTP/1.1 200 ")


async def reset(stream: trio.SocketStream) -> None:
    """Hang up with a reset in place of an orderly end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


UPGRADE = (
    b"GET /xiaozhi/v1/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(UPGRADE + b"Connection: Upgrade,\xff\r\n\r\n", id="connection"),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
            id="subprotocol",
        ),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\nSec-WebSocket-Extensions: \xff\r\n\r\n",
            id="extensions",
        ),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\n\r\n\x81\x82\x00\x00\x00\x00hi", id="early frame"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200, id="TLS"),
        pytest.param(b"\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=", id="RDP"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100, id="HTTP/2"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: \xff\r\n\r\n",
            id="h2c",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="chunk"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * 70_000, id="endless head"),
    ],
)
async def test_no_packet_ends_the_server(gate: Running, packet: bytes) -> None:
    async with await gate.connect() as stream:
        await stream.send_all(packet)
        await stream.send_eof()
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in stream:
                pass
    await gate.quiet()


async def test_an_offer_of_http2_is_answered_with_http1(gate: Running) -> None:
    offer = (
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    )
    assert (await gate.exchange(offer)).startswith(b"HTTP/1.1 200 ")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert (await gate.exchange(preface)).startswith(b"HTTP/1.1 4")


async def test_a_peer_that_ends_its_side_early_is_answered_and_let_go() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
        )
        await send({"type": "http.response.body", "body": b"late"})

    async with running(app) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await stream.send_eof()
        with trio.fail_after(5):
            assert (b"".join([part async for part in stream])).endswith(b"late")
        await server.quiet()


async def test_what_escapes_a_connection_is_logged_and_counted(
    gate: Running, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    await gate.exchange(UPGRADE + b"Connection: Upgrade,\xff\r\n\r\n")
    await gate.quiet()
    assert gate.counted("http_connection_failures") == 1
    [(_, _, fields)] = [line for line in log_lines if line[1] == "http connection failed"]
    assert fields["peer"] == "127.0.0.1"
    assert fields["reason"].startswith("UnicodeDecodeError: ")
    assert len(fields["reason"]) <= 200


@pytest.mark.parametrize(
    "packet", [b"\xff\x00garbage\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""]
)
async def test_thirty_resets_do_not_end_the_server(gate: Running, packet: bytes) -> None:
    for _ in range(30):
        stream = await gate.connect()
        if packet:
            await stream.send_all(packet)
        await reset(stream)


async def test_a_subprotocol_nobody_offered_does_not_end_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "never-offered"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"alive"})

    async with running(app) as server:
        await server.exchange(UPGRADE + b"Connection: Upgrade\r\n\r\n")
        answer = await server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"alive" in answer


async def test_a_websocket_is_told_the_right_port(gate: Running) -> None:
    answer = await gate.exchange(UPGRADE + b"Connection: keep-alive, Upgrade\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"ws://127.0.0.1:8123/xiaozhi/v1/" in answer


async def test_a_broken_application_is_logged_and_answered(
    log_lines: list[tuple[str, str, dict[str, Any]]],
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("broken")

    async with running(app) as server:
        answer = await server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"broken" not in answer
    assert ("ERROR", "hypercorn failed", {"reason": "Error in ASGI Framework"}) in log_lines


async def test_each_request_leaves_a_line_for_debugging(
    gate: Running, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    await gate.exchange(OTA_REQUEST)
    [(level, _, fields)] = [line for line in log_lines if line[1] == "http request answered"]
    assert level == "DEBUG"
    assert fields["peer"] == "127.0.0.1"
    assert (fields["method"], fields["path"], fields["status"]) == ("POST", "/xiaozhi/ota", 200)


async def test_a_large_unwanted_upload_gets_its_answer(gate: Running) -> None:
    upload = b"x" * 3_000_000
    head = (
        b"POST /mcp/vision/explain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(upload)
    )
    assert (await gate.exchange(head + upload)).startswith(b"HTTP/1.1 503 ")


async def test_a_connection_serves_many_requests(gate: Running) -> None:
    kept = OTA_REQUEST.replace(b"Connection: close\r\n", b"")
    answer = await gate.exchange(kept + kept + OTA_REQUEST)
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert gate.counted("http_connections") == 1


async def test_a_silent_peer_is_let_go(make_services: Callable[..., HttpServices]) -> None:
    settings = settings_for_tests(handshake_seconds=0.05)
    async with running(build_app(make_services()), settings) as server:
        assert await server.exchange(b"GET / HT") == b""


async def test_too_many_connections_are_told_so(
    make_services: Callable[..., HttpServices],
) -> None:
    async with running(build_app(make_services()), settings_for_tests(connections=1)) as server:
        async with await server.connect() as first:
            await first.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await first.receive_some()).startswith(b"HTTP/1.1 200 ")
            answer = await server.exchange(b"")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert json.loads(body)["error"] == "too_many_connections"
            assert server.counted("http_connections_refused") == 1
        await server.quiet()
        assert (await server.exchange(OTA_REQUEST)).startswith(b"HTTP/1.1 200 ")


async def wait_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


async def test_a_request_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.05)
    async with running(wait_for_ever) as server:
        assert await server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        assert server.counted("http_connection_failures") == 0


async def test_shutdown_lets_a_request_end() -> None:
    begun, finish = trio.Event(), trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ended well"})

    settings = attrs.evolve(
        settings_for_tests(),
        server=ServerSettings(host="127.0.0.1", http_port=0, drain_seconds=PATIENCE),
    )
    async with running(app, settings) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
        idle = await server.connect()
        server.shutdown.set()
        async with idle:
            assert await idle.receive_some() == b""
        with pytest.raises(OSError, match="all attempts"):
            await server.connect()
        finish.set()
        assert b"ended well" in b"".join([part async for part in stream])
        await server.stopped.wait()


async def test_shutdown_does_not_wait_for_a_request_that_never_ends() -> None:
    async with running(wait_for_ever) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server.counted("http_connections"):
            await trio.lowlevel.checkpoint()
        server.shutdown.set()
        await server.stopped.wait()


async def test_shutdown_does_not_wait_for_a_peer_that_reads_nothing() -> None:
    stuck = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        stuck.set()
        # More than both ends' socket buffers hold.
        await send({"type": "http.response.body", "body": bytes(64 * 1024 * 1024)})

    async with running(app) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await stuck.wait()
        server.shutdown.set()
        await server.stopped.wait()


async def test_cancelling_the_server_ends_it_at_once() -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_http, wait_for_ever, settings_for_tests(), shutdown=trio.Event())
            port: int = await nursery.start(serve)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_told_with_what_to_change() -> None:
    async with running(wait_for_ever) as server:
        settings = Settings(server=ServerSettings(host="127.0.0.1", http_port=server.port))
        with pytest.raises(HttpListenError, match=r"port \d+ .*server\.http_port"):
            await serve_http(wait_for_ever, settings, shutdown=trio.Event())


async def test_a_foreign_address_is_told_with_what_to_change() -> None:
    settings = Settings(server=ServerSettings(host="198.51.100.1", http_port=0))
    with pytest.raises(HttpListenError, match=r"server\.host"):
        await serve_http(wait_for_ever, settings, shutdown=trio.Event())


async def test_a_privileged_port_is_told_with_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(port: int, *, host: str) -> list[trio.SocketListener]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(trio, "open_tcp_listeners", refused)
    settings = Settings(server=ServerSettings(http_port=80))
    with pytest.raises(HttpListenError, match="1024"):
        await serve_http(wait_for_ever, settings, shutdown=trio.Event())


async def test_one_free_port_serves_where_a_host_has_many_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = [*(await trio.open_tcp_listeners(0, host="127.0.0.1"))]
    opened += await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def two(port: int, *, host: str) -> list[trio.SocketListener]:
        return opened

    monkeypatch.setattr(trio, "open_tcp_listeners", two)
    async with running(wait_for_ever) as server:
        assert server.port == opened[0].socket.getsockname()[1]
        assert opened[1].socket.fileno() == -1
