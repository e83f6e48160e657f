"""The doorway in memory: TLS, time limits, peers that leave, plain HTTP."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = "/xiaozhi/v1/?device-id=aabbccddeeff"
SIGNER = TokenSigner(secret="s" * 32, lifetime_seconds=60)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("example.org").configure_cert(context)
    return context


async def test_tls_from_end_to_end(
    make_house: Callable[..., Any],
    tls: ssl.SSLContext,
    authority: trustme.CA,
    autojump_clock: trio.testing.MockClock,
) -> None:
    house = make_house(tls=tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with house.peer() as transport:
        stream = trio.SSLStream(transport, trusting, server_hostname="example.org")
        await stream.send_all(house.upgrade(TARGET) + b"\x81\x82\0\0\0\0hi")
        assert b" 101 " in await stream.receive_some()
        assert await stream.receive_some() == b"\x81\x02hi"
        await stream.send_all(b"\x81\x83\0\0\0\0bye")
        assert await stream.receive_some() == b"\x88\x09\x03\xe8goodbye"
    async with house.peer() as transport:
        stream = trio.SSLStream(transport, trusting, server_hostname="example.org")
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"wss://h/xiaozhi/v1/" in await stream.receive_some()


async def test_tls_that_the_client_does_not_trust(
    make_house: Callable[..., Any], tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(tls=tls)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        incoming, outgoing, server_hostname="example.org"
    )
    async with house.peer() as stream:
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        await stream.send_all(outgoing.read())
        incoming.write(await stream.receive_some())
        with pytest.raises(ssl.SSLCertVerificationError):
            client.do_handshake()
        await stream.send_all(outgoing.read())
    (line,) = house.lines("peer does not speak WebSocket")
    assert line["reason"] == "tls_handshake_failed"
    assert "UNKNOWN_CA" in line["detail"]
    assert "public authorities" in line["fix"]


async def test_peer_that_leaves_within_the_tls_handshake(
    make_house: Callable[..., Any], tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(tls=tls)
    async with house.peer() as stream:
        await stream.send_all(b"\x16\x03\x01")
    (line,) = house.lines("peer does not speak WebSocket")
    assert line["detail"] == "the TLS handshake failed: the peer hung up"


async def test_plain_http_on_the_tls_port(
    make_house: Callable[..., Any], tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(tls=tls)
    answer = await house.answer(house.upgrade(TARGET))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"wss://" in answer
    assert house.counted("handshakes_refused", reason="plain_http_on_tls_port") == 1


async def test_noise_on_the_tls_port(
    make_house: Callable[..., Any], tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(tls=tls)
    assert await house.answer(b"SSH-2.0-OpenSSH_9.6\r\n") == b""
    assert house.counted("strangers", reason="ssh_client") == 1


async def test_silence_on_the_tls_port_gets_no_plain_answer(
    make_house: Callable[..., Any], tls: ssl.SSLContext, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(tls=tls)
    assert await house.answer(b"") == b""
    assert house.counted("handshakes_refused", reason="silent_peer") == 1


async def test_port_probe_is_a_debug_line(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.peer():
        pass
    (line,) = house.lines("peer left during the handshake")
    assert line["level"] == "DEBUG"


async def test_peer_that_leaves_within_its_head_is_an_info_line(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.peer() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
    (line,) = house.lines("peer left during the handshake")
    assert line["level"] == "INFO"


async def test_broken_connection_within_the_head(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    _, theirs = trio.testing.memory_stream_pair()

    async def reset() -> None:
        raise trio.BrokenResourceError

    theirs.receive_stream.receive_some_hook = reset
    await house.attend(theirs)
    assert house.lines("peer left during the handshake")
    assert house.counted("connection_failures") == 0


@pytest.mark.parametrize("size", [1, 7])
async def test_head_in_small_pieces(
    house: Any, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    request = b"\r\n" + house.upgrade(TARGET) + b"\x81\x82\0\0\0\0hi"
    async with house.peer() as stream:
        for start in range(0, len(request), size):
            await stream.send_all(request[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\n\x81\x02hi")


async def test_time_limit_counts_from_the_first_moment(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(limits=LimitSettings(handshake_seconds=3))
    began = trio.current_time()
    async with house.peer() as stream:
        for byte in b"GET /":
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.7)
        answer = await house.everything(stream)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert trio.current_time() - began < 5


async def test_stranger_that_trickles_is_not_waited_for(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    assert await house.answer(b"\x05") == b""
    assert trio.current_time() - began < 2
    async with house.peer() as stream:
        await stream.send_all(b"\x16\x03\x01")
    assert house.counted("strangers", reason="tls_on_plain_port") == 1


async def test_peers_that_leave_before_they_are_told(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(authenticator=Authenticator(SIGNER))
    for request in (
        b"GET / HTTP/1.1\r\n\r\n",
        house.upgrade("/wrong"),
        house.upgrade(TARGET),
        house.upgrade(TARGET, ("Origin", "x")),
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(request)
        ours.receive_stream.close()
        await house.attend(theirs)
    assert len(house.lines("peer left before its answer")) == 4
    assert house.counted("connection_failures") == 0


async def test_peer_that_leaves_before_its_upgrade_is_answered(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(3):
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(house.upgrade(TARGET))
        ours.receive_stream.close()
        await house.attend(theirs)
    assert not house.sessions
    assert len(house.lines("peer left during the handshake")) == 1
    assert house.counted("connection_failures") == 0


async def test_browser_that_stops_reading_is_not_waited_for(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(authenticator=Authenticator(SIGNER))
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(house.upgrade(TARGET, ("Origin", "x")))
    sends = 0

    async def stall_after_the_answer() -> None:
        nonlocal sends
        sends += 1
        if sends > 1:
            await trio.sleep_forever()

    theirs.send_stream.send_all_hook = stall_after_the_answer
    began = trio.current_time()
    await house.attend(theirs)
    assert trio.current_time() - began <= 3


async def test_failing_health_hurts_one_connection(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("sick")

    object.__setattr__(house.gateway._doorway, "health", fail)
    assert await house.answer(b"GET /health HTTP/1.1\r\n\r\n") == b""
    assert house.counted("connection_failures") == 1


async def test_page_names_the_configured_address(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(server=ServerSettings(websocket_url="wss://voice.example/ws/"))
    assert b"wss://voice.example/ws/" in await house.answer(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("host", ["", "Host: <script>\r\n"])
async def test_page_repeats_no_strange_host(
    house: Any, host: str, autojump_clock: trio.testing.MockClock
) -> None:
    answer = await house.answer(f"GET / HTTP/1.1\r\n{host}\r\n".encode())
    assert b"script" not in answer
    assert b"ws://ADDRESS-OF-THIS-SERVER:0/xiaozhi/v1/" in answer


async def test_allowed_device_needs_no_token(
    make_house: Callable[..., Any], autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(authenticator=Authenticator(SIGNER, ["AA-BB-CC-DD-EE-FF"]))
    async with house.peer() as stream:
        await stream.send_all(house.upgrade(TARGET))
        assert b" 101 " in await stream.receive_some()
    other = await house.answer(house.upgrade("/xiaozhi/v1/", ("Device-Id", "other")))
    assert json.loads(other.partition(b"\r\n\r\n")[2])["reason"] == "token_missing"


def test_allowed_device_must_be_a_device_id() -> None:
    with pytest.raises(ValueError, match="device id"):
        Authenticator(None, ["not a device"])


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("x", "token_malformed"),
        ("A" * 43 + ".1", "token_signature"),
        (SIGNER.issue("other", "aa:bb:cc:dd:ee:ff"), "token_signature"),
    ],
)
async def test_bad_token_is_refused_with_its_own_reason(
    make_house: Callable[..., Any],
    token: str,
    reason: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    house = make_house(authenticator=Authenticator(SIGNER))
    answer = await house.answer(
        house.upgrade(
            "/xiaozhi/v1/",
            ("Device-Id", "AA:BB:CC:DD:EE:FF"),
            ("Client-Id", "c"),
            ("Authorization", f"Bearer {token}"),
        )
    )
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == reason
    assert token == "x" or not any(token in line["text"] for line in house.log)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"OPTIONS / HTTP/1.1\r\n\r\n", b"204"),
        (b"POST /xiaozhi/ota/ HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /health HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 40_000, b"431"),
    ],
)
async def test_plain_requests(
    house: Any, request_head: bytes, status: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    assert (await house.answer(request_head)).split()[1] == status
