"""The client behind a trusted proxy, in memory: in the log, under the limits, over TLS."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

PROXY = Endpoint.of("10.0.0.1", 40000)
STRANGER = Endpoint.of("192.0.2.66", 6)
TARGET = "/xiaozhi/v1/?device-id=aabbccddeeff"
HEADER = b"PROXY TCP4 192.0.2.1 10.0.0.9 56324 8000\r\n"
SERVER = ServerSettings(host="127.0.0.1", websocket_port=0, trusted_proxies=("10.0.0.0/8",))


@pytest.fixture
def house(make_house: Callable[..., Any]) -> Any:
    return make_house(server=SERVER, limits=LimitSettings(connections_per_address=2))


async def session_of(house: Any, request: bytes, proxy: Endpoint = PROXY) -> None:
    async with house.peer(proxy) as stream:
        await stream.send_all(request + b"\x81\x83\0\0\0\0bye")
        assert b" 101 " in await house.everything(stream)


def version_2(*, local: bool = False) -> bytes:
    body = bytes([192, 0, 2, 1, 10, 0, 0, 9]) + (56324).to_bytes(2) + (8000).to_bytes(2)
    command = b"\x20" if local else b"\x21"
    return b"\r\n\r\n\x00\r\nQUIT\n" + command + b"\x11\x00\x0c" + body


@pytest.mark.parametrize("header", [HEADER, version_2()])
@pytest.mark.parametrize("size", [1, 13, 1000])
async def test_proxy_header_names_the_client(
    house: Any, header: bytes, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    request = header + house.upgrade(TARGET) + b"\x81\x83\0\0\0\0bye"
    async with house.peer(PROXY) as stream:
        for start in range(0, len(request), size):
            await stream.send_all(request[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        assert (await house.everything(stream)).endswith(b"goodbye")
    for event in ("device connected", "device disconnected"):
        (line,) = house.lines(event)
        assert line["peer"] == "192.0.2.1:56324"


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", version_2(local=True), b""])
async def test_proxy_that_speaks_for_itself(
    house: Any, header: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    await session_of(house, header + house.upgrade(TARGET))
    (line,) = house.lines("device connected")
    assert line["peer"] == "10.0.0.1:40000"


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Forwarded-For", "203.0.113.1, 192.0.2.1"), ("Forwarded", "for=192.0.2.1;proto=https")],
)
async def test_forwarding_headers_name_the_client(
    house: Any, header: str, value: str, autojump_clock: trio.testing.MockClock
) -> None:
    await session_of(house, house.upgrade(TARGET, (header, value)))
    (line,) = house.lines("device connected")
    assert line["peer"] == "192.0.2.1"


async def test_a_client_behind_a_proxy_header_is_not_believed(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    await session_of(house, HEADER + house.upgrade(TARGET, ("X-Forwarded-For", "127.0.0.1")))
    (line,) = house.lines("device connected")
    assert line["peer"] == "192.0.2.1:56324"


async def test_nobody_else_is_believed(house: Any, autojump_clock: trio.testing.MockClock) -> None:
    await session_of(house, house.upgrade(TARGET, ("X-Forwarded-For", "127.0.0.1")), STRANGER)
    (line,) = house.lines("device connected")
    assert line["peer"] == "192.0.2.66:6"
    assert await house.answer(HEADER + house.upgrade(TARGET), STRANGER) == b""
    (line,) = house.lines("peer does not speak WebSocket")
    assert (line["reason"], line["peer"]) == ("proxy_header", "192.0.2.66:6")
    assert "trusted_proxies" in line["fix"]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"PROXY TCP4 nonsense\r\n", "proxy_header_malformed"),
        (b"PROXY " + b"x" * 200, "proxy_header_malformed"),
        (HEADER + b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client"),
        (HEADER + b"\x16\x03\x01" + bytes(20), "tls_on_plain_port"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client"),
        (HEADER + HEADER, "proxy_header"),
    ],
)
async def test_strangers_behind_a_proxy(
    house: Any, sent: bytes, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    assert await house.answer(sent, PROXY) == b""
    (line,) = house.lines("peer does not speak WebSocket")
    assert line["reason"] == reason
    assert line["peer"] == ("192.0.2.1:56324" if sent.startswith(HEADER) else "10.0.0.1:40000")


async def test_refusals_name_the_client(house: Any, autojump_clock: trio.testing.MockClock) -> None:
    await house.answer(house.upgrade("/wrong", ("X-Forwarded-For", "192.0.2.1")), PROXY)
    await house.answer(house.upgrade("/wrong", ("X-Forwarded-For", "192.0.2.2")), PROXY)
    lines = house.lines("handshake refused")
    assert [line["peer"] for line in lines] == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("sent", [HEADER, HEADER + b"GET /"])
async def test_silence_behind_a_proxy(
    house: Any, sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    assert (await house.answer(sent, PROXY)).startswith(b"HTTP/1.1 408 ")
    reason = "silent_peer" if sent == HEADER else "handshake_timeout"
    assert house.counted("handshakes_refused", reason=reason) == 1


async def test_health_check_of_a_load_balancer_is_a_debug_line(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.peer(PROXY) as stream:
        await stream.send_all(version_2(local=True))
    (line,) = house.lines("peer left during the handshake")
    assert line["level"] == "DEBUG"


@pytest.mark.parametrize("proxied", [True, False])
async def test_connections_per_address(
    house: Any, proxied: bool, autojump_clock: trio.testing.MockClock
) -> None:
    def request(client: str) -> tuple[bytes, Endpoint]:
        if not proxied:
            return house.upgrade(TARGET), Endpoint.of(client, 1)
        return house.upgrade(TARGET, ("X-Forwarded-For", client)), PROXY

    busy, peer = request("192.0.2.1")
    device = busy.replace(b"aabbccddeeff", b"aabbccddee00")
    async with house.peer(peer) as one, house.peer(peer) as two:
        for stream, sent in ((one, busy), (two, device)):
            await stream.send_all(sent)
            assert b" 101 " in await stream.receive_some()
        answer = await house.answer(*request("192.0.2.1"))
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["reason"] == "too_many_connections_per_address"
        assert "all 2 connections" in body["message"]
        other, other_peer = request("192.0.2.2")
        async with house.peer(other_peer) as stream:
            await stream.send_all(other.replace(b"aabbccddeeff", b"aabbccddee01"))
            assert b" 101 " in await stream.receive_some()
    assert house.counted("handshakes_refused", reason="too_many_connections_per_address") == 1
    await session_of(house, *request("192.0.2.1"))


async def test_connections_per_address_behind_a_proxy_header_count_before_any_head(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.peer(PROXY) as one, house.peer(PROXY) as two:
        await one.send_all(HEADER)
        await two.send_all(HEADER)
        await trio.testing.wait_all_tasks_blocked()
        assert (await house.answer(HEADER, PROXY)).startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize(("said", "scheme"), [("https", b"wss"), ("http", b"ws"), ("x", b"ws")])
async def test_page_names_the_scheme_that_the_client_uses(
    house: Any, said: str, scheme: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    request = f"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: {said}\r\n\r\n".encode()
    assert b" " + scheme + b"://h/" in await house.answer(request, PROXY)
    assert b" ws://h/" in await house.answer(request, STRANGER)


async def test_proxy_header_before_tls(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("example.org").configure_cert(context)
    house = make_house(server=SERVER, tls=context, limits=LimitSettings(connections_per_address=1))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with house.peer(PROXY) as transport:
        await transport.send_all(HEADER)
        stream = trio.SSLStream(transport, trusting, server_hostname="example.org")
        await stream.send_all(house.upgrade(TARGET))
        assert b" 101 " in await stream.receive_some()
        # What a peer is told before TLS it could not read.
        assert await house.answer(HEADER, PROXY) == b""
    (line,) = house.lines("device connected")
    assert line["peer"] == "192.0.2.1:56324"
    assert b"wss://" in await house.answer(HEADER + b"GET / HTTP/1.1\r\n\r\n", PROXY)
