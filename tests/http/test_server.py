from __future__ import annotations

import contextlib
import json
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings, Settings
from xiaozhi_trio.http import connection
from xiaozhi_trio.http import server as http_server
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import serve_http
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.http.tokens import SteadyTokens
from xiaozhi_trio.listener import CannotListen
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send


pytestmark = pytest.mark.sockets

PATIENCE = 20
OTA_REQUEST = (
    b"POST /xiaozhi/ota HTTP/1.1\r\nHost: 192.168.1.5\r\nDevice-Id: aa:bb:cc:dd:ee:ff\r\n"
    b"Client-Id: 6e1f\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    b"Connection: close\r\n\r\n{}"
)

UPGRADE = (
    b"GET /xiaozhi/v1/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)

LogLines: TypeAlias = list[tuple[str, str, dict[str, Any]]]


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

    def counted(self, name: str, **labels: str) -> int:
        return sum(
            count.value
            for count in self.counters.snapshot()
            if count.name == name and labels.items() <= dict(count.labels).items()
        )

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


def services_of(settings: Settings) -> HttpServices:
    return HttpServices(
        settings=settings,
        tokens=SteadyTokens(TokenSigner(secret="s" * 32, lifetime_seconds=60)),
        websocket_port=lambda: 8123,
        health=lambda: {"status": "ok"},
    )


@contextlib.asynccontextmanager
async def running(
    app: ASGIApp | None = None, settings: Settings | None = None
) -> AsyncIterator[Running]:
    """The HTTP port with this application, or with the one of the product."""
    shutdown, stopped = trio.Event(), trio.Event()
    services = services_of(settings or settings_for_tests())
    counters = services.counters

    async def serve(task_status: trio.TaskStatus[int]) -> None:
        await serve_http(
            app or build_app(services), services, shutdown=shutdown, task_status=task_status
        )
        stopped.set()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            port: int = await nursery.start(serve)
            yield Running(port=port, counters=counters, shutdown=shutdown, stopped=stopped)
            shutdown.set()


@pytest.fixture
async def gate() -> AsyncIterator[Running]:
    async with running() as server:
        yield server
        assert (await server.exchange(OTA_REQUEST)).startswith(b"HTTP/1.1 200 ")


async def reset(stream: trio.SocketStream) -> None:
    """Hang up with a reset in place of an orderly end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


WEBSOCKET_URL = b"ws://127.0.0.1:8123/xiaozhi/v1/"


@pytest.mark.parametrize(
    ("packet", "answer", "reason"),
    [
        pytest.param(
            UPGRADE + b"Connection: Upgrade,\xff\r\n\r\n", b"404", "wrong_port", id="connection"
        ),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
            b"404",
            "wrong_port",
            id="subprotocol",
        ),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\nSec-WebSocket-Extensions: \xff\r\n\r\n",
            b"404",
            "wrong_port",
            id="extensions",
        ),
        pytest.param(
            UPGRADE + b"Connection: Upgrade\r\n\r\n\x81\x82\x00\x00\x00\x00hi",
            b"404",
            "wrong_port",
            id="early frame",
        ),
        pytest.param(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
            b"",
            "tls_on_plain_port",
            id="TLS",
        ),
        pytest.param(
            bytes.fromhex("030000130ee000000000000100080003000000"), b"", "rdp_scanner", id="RDP"
        ),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", b"", "ssh_client", id="SSH"),
        pytest.param(bytes(range(128, 256)), b"", "not_http", id="garbage"),
        pytest.param(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
            b"",
            "http2_on_http1_port",
            id="HTTP/2",
        ),
        pytest.param(
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + OTA_REQUEST,
            b"",
            "proxy_header",
            id="PROXY",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"400",
            "request_malformed",
            id="chunk",
        ),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"400", "request_malformed", id="no Host"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"a" * 70_000,
            b"431",
            "head_too_large",
            id="endless head",
        ),
    ],
)
async def test_each_packet_gets_its_answer_and_one_line(
    gate: Running, packet: bytes, answer: bytes, reason: str, log_lines: LogLines
) -> None:
    for _ in range(2):
        got = await gate.exchange(packet)
        assert got[9:12] == answer
        if answer:
            assert got.startswith(b"HTTP/1.1 ")
            assert json.loads(got.partition(b"\r\n\r\n")[2])["error"] == reason
    await gate.quiet()
    [(_, event, fields)] = [line for line in log_lines if line[0] == "WARNING"]
    told = "handshake refused" if answer else "peer does not speak HTTP"
    assert (event, fields["reason"]) == (told, reason)
    assert fields["peer"].startswith("127.0.0.1:")
    assert fields["detail"]
    assert fields["fix"]
    counter = "handshakes_refused" if answer else "strangers"
    assert gate.counted(counter, reason=reason) == 2
    assert gate.counted("http_connection_failures") == 0


async def test_an_offer_of_http2_is_answered_with_http1(gate: Running) -> None:
    offer = (
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: \xff\r\n\r\n"
    )
    assert (await gate.exchange(offer)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("second", "answer", "reason"),
    [
        (UPGRADE + b"Connection: Upgrade,\xff\r\n\r\n", b"404", "wrong_port"),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: x\r\n\r\n", b"404", "wrong_port"),
        (b"\xff\r\n\r\n", b"400", "request_malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000, b"431", "head_too_large"),
    ],
)
async def test_a_later_request_is_refused_like_the_first(
    gate: Running, second: bytes, answer: bytes, reason: str
) -> None:
    async with await gate.connect() as stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.send_all(second)
        got = b"".join([part async for part in stream])
    head, _, body = got.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    assert head.startswith(answer)
    assert not body if second.startswith(b"HEAD") else json.loads(body)["error"] == reason
    assert gate.counted("handshakes_refused", reason=reason) == 1
    assert gate.counted("http_connection_failures") == 0


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
    gate: Running, log_lines: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UnicodeError("a bug" * 100)

    with monkeypatch.context() as broken:
        broken.setattr(connection, "wants_upgrade", fail)
        for _ in range(2):
            assert await gate.exchange(OTA_REQUEST) == b""
    await gate.quiet()
    assert gate.counted("http_connection_failures") == 2
    [(_, _, fields)] = [line for line in log_lines if line[1] == "http connection failed"]
    assert fields["peer"].startswith("127.0.0.1:")
    assert fields["detail"].startswith("UnicodeError: a bug")
    assert len(fields["detail"]) <= 200


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
    log_lines: LogLines,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("broken")

    async with running(app) as server:
        answer = await server.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"broken" not in answer
    [(level, _, fields)] = [line for line in log_lines if line[1] == "hypercorn failed"]
    assert (level, fields["reason"]) == ("ERROR", "Error in ASGI Framework")


async def test_each_request_leaves_a_line_for_debugging(gate: Running, log_lines: LogLines) -> None:
    await gate.exchange(OTA_REQUEST)
    [(level, _, fields)] = [line for line in log_lines if line[1] == "http request answered"]
    assert level == "DEBUG"
    assert fields["peer"].startswith("127.0.0.1:")
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


@pytest.mark.parametrize(
    ("sent", "reason"), [(b"", "silent_peer"), (b"GET / HT", "handshake_timeout")]
)
async def test_a_silent_peer_is_told_and_let_go(sent: bytes, reason: str) -> None:
    async with running(settings=settings_for_tests(handshake_seconds=0.05)) as server:
        answer = await server.exchange(sent)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"within 0.05 s" in answer
        assert server.counted("handshakes_refused", reason=reason) == 1


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with (
        running(settings=settings_for_tests(handshake_seconds=0.05)) as server,
        await server.connect() as stream,
    ):
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join([part async for part in stream])
    assert answer.count(b"HTTP/1.1 ") == 1


@contextlib.asynccontextmanager
async def one_at_work(server: Running) -> AsyncIterator[None]:
    """A peer that holds its connection, with a request answered."""
    async with await server.connect() as first:
        await first.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await first.receive_some()).startswith(b"HTTP/1.1 200 ")
        yield
    await server.quiet()


async def test_too_many_connections_are_told_the_limit(log_lines: LogLines) -> None:
    async with running(settings=settings_for_tests(connections=1)) as server:
        async with one_at_work(server):
            for _ in range(2):
                answer = await server.exchange(OTA_REQUEST)
                head, _, body = answer.partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nRetry-After: 5" in head
                told = json.loads(body)
                assert told["error"] == "too_many_connections"
                assert "all 1 connections are in use" in told["message"]
        assert server.counted("handshakes_refused", reason="too_many_connections") == 2
        [(_, _, fields)] = [line for line in log_lines if line[1] == "handshake refused"]
        assert "[limits] connections" in fields["fix"]
        assert (await server.exchange(OTA_REQUEST)).startswith(b"HTTP/1.1 200 ")


async def test_a_rush_beyond_all_limits_is_just_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_TURNED_AWAY_AT_ONCE", 0)
    async with running(settings=settings_for_tests(connections=1)) as server:
        async with one_at_work(server):
            assert await server.exchange(b"") == b""
        assert server.counted("handshakes_refused", reason="too_many_connections") == 1


async def test_an_address_with_too_many_connections_is_told_the_limit() -> None:
    settings = attrs.evolve(
        settings_for_tests(connections_per_address=1),
        server=ServerSettings(host="127.0.0.1", http_port=0, trusted_proxies=("127.0.0.1",)),
    )
    header = b"PROXY TCP4 192.0.2.1 10.0.0.9 5 8003\r\n"
    async with running(settings=settings) as server, await server.connect() as first:
        await first.send_all(header + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await first.receive_some()).startswith(b"HTTP/1.1 200 ")
        answer = await server.exchange(header + OTA_REQUEST)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"all 1 connections that one address may have" in answer
        other = header.replace(b"192.0.2.1 ", b"192.0.2.2 ")
        assert (await server.exchange(other + OTA_REQUEST)).startswith(b"HTTP/1.1 200 ")


async def test_log_lines_about_a_request_name_the_client_behind_a_proxy(
    log_lines: LogLines,
) -> None:
    settings = attrs.evolve(
        settings_for_tests(),
        server=ServerSettings(host="127.0.0.1", http_port=0, trusted_proxies=("127.0.0.1",)),
    )
    forwarded = OTA_REQUEST.replace(b"Host:", b"X-Forwarded-For: 192.0.2.9\r\nHost:")
    async with running(settings=settings) as server:
        await server.exchange(b"PROXY TCP6 2001:db8::1 ::1 5 8003\r\n" + OTA_REQUEST)
        await server.exchange(forwarded)
        await server.quiet()
    peers = [fields["peer"] for _, event, fields in log_lines if event == "http request answered"]
    assert peers == ["[2001:db8::1]:5", "192.0.2.9"]


async def wait_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


async def test_a_request_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.05)
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
            serve = partial(
                serve_http, wait_for_ever, services_of(settings_for_tests()), shutdown=trio.Event()
            )
            port: int = await nursery.start(serve)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                nursery.cancel_scope.cancel()


async def test_a_port_in_use_is_told_with_what_to_change() -> None:
    async with running(wait_for_ever) as server:
        settings = Settings(server=ServerSettings(host="127.0.0.1", http_port=server.port))
        with pytest.raises(CannotListen, match=r"port \d+ .*\[server\] http_port"):
            await serve_http(wait_for_ever, services_of(settings), shutdown=trio.Event())


async def test_a_foreign_address_is_told_with_what_to_change() -> None:
    settings = Settings(server=ServerSettings(host="198.51.100.1", http_port=0))
    with pytest.raises(CannotListen, match=r"\[server\] host"):
        await serve_http(wait_for_ever, services_of(settings), shutdown=trio.Event())
