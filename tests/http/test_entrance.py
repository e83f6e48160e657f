"""What the HTTP port does with first bytes, in memory and on a virtual clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from xiaozhi_trio.config.settings import LimitSettings
from xiaozhi_trio.http.entrance import Entrance, Visitor
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.report import Reporter
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.seats import Seats

PEER = Endpoint.of("192.0.2.7", 5000)
PROXY = Endpoint.of("10.0.0.1", 40000)
HEAD = b"GET /xiaozhi/ota/ HTTP/1.1\r\nHost: h\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.1 10.0.0.9 56324 8003\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + bytes([192, 0, 2, 1, 10, 0, 0, 9])
    + (56324).to_bytes(2)
    + (8003).to_bytes(2)
)
TRUSTED = TrustedNetworks(["10.0.0.0/8"])
LIMITS = LimitSettings(handshake_seconds=3, head_bytes=1024, connections_per_address=1)

Lines = list[tuple[str, str, dict[str, Any]]]
Come = Callable[..., Awaitable[tuple[Visitor | None, bytes]]]


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def seats() -> Seats:
    return Seats(LIMITS.connections_per_address, TRUSTED)


@pytest.fixture
def come(counters: Counters, seats: Seats, autojump_clock: trio.testing.MockClock) -> Come:
    entrance = Entrance(limits=LIMITS, reporter=Reporter(counters, speaks="HTTP"), trusted=TRUSTED)

    async def come(
        *pieces: bytes, peer: Endpoint | None = PEER, hang_up: bool = False
    ) -> tuple[Visitor | None, bytes]:
        """The visitor that these pieces make, and what was answered."""
        ours, theirs = trio.testing.memory_stream_pair()
        admitted: list[Visitor | None] = []

        async def admit() -> None:
            with seats.one() as seat:
                admitted.append(await entrance.admit(theirs, peer, seat))
            await theirs.send_eof()

        # Of the virtual clock: what would never end fails.
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(admit)
                for piece in pieces:
                    await ours.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                if hang_up:
                    await ours.send_eof()
                answer = b"".join([part async for part in ours])
        return admitted[0], answer

    return come


def counted(counters: Counters) -> dict[str, str]:
    return {count.name: dict(count.labels)["reason"] for count in counters.snapshot()}


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_request_comes_in_whole(
    come: Come, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    pieces = [HEAD[start : start + size] for start in range(0, len(HEAD), size)]
    assert await come(*pieces) == (Visitor(PEER, HEAD), b"")
    assert await come(b"\r\n" + HEAD + b"body") == (Visitor(PEER, HEAD + b"body"), b"")


@pytest.mark.parametrize(
    ("sent", "reason", "word"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "tls_on_plain_port", "http"),
        (b"\x80garbage" * 10, "not_http", "scans"),
        (bytes.fromhex("030000130ee000000000000100080003000000"), "rdp_scanner", "scans"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh_client", "scans"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_on_http1_port", "HTTP/1.1"),
        (b"\x00\x00\x00\x54\xffSMBr" + bytes(76), "smb_scanner", "scans"),
        (b"\x10\x1a\x00\x04MQTT\x04\x02\x00<" + bytes(14), "mqtt_client", "mqtt"),
        (V1 + HEAD, "proxy_header", "trusted_proxies"),
        (V2 + HEAD, "proxy_header", "trusted_proxies"),
        (b"\x05", "not_http", "scans"),
    ],
)
async def test_strangers_get_no_answer_and_one_line(
    come: Come,
    counters: Counters,
    log_lines: Lines,
    sent: bytes,
    reason: str,
    word: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    for _ in range(3):
        assert await come(sent) == (None, b"")
    [(level, event, fields)] = log_lines
    assert (level, event) == ("WARNING", "peer does not speak HTTP")
    assert (fields["reason"], fields["peer"]) == (reason, "192.0.2.7:5000")
    assert fields["spoke"]
    assert fields["detail"]
    assert word in fields["fix"]
    assert "ws" not in fields["fix"].split()
    assert counted(counters) == {"strangers": reason}
    assert counters.snapshot()[0].value == 3


async def test_tls_is_explained_for_a_port_that_has_none(
    come: Come, log_lines: Lines, autojump_clock: trio.testing.MockClock
) -> None:
    await come(b"\x16\x03\x01" + bytes(20))
    fields = log_lines[0][2]
    assert fields["detail"] == "https:// used on an http:// port"
    assert "tls_certificate" not in fields["fix"]


@pytest.mark.parametrize(
    ("sent", "status", "reason", "told"),
    [
        (b"", 408, "silent_peer", "within 3 s"),
        (b"GET / HT", 408, "handshake_timeout", "within 3 s"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 2000, 431, "head_too_large", "larger than 1024 bytes"),
        (b"GET /\r\n\r\n", 400, "request_malformed", "METHOD TARGET HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "request_malformed", "Name: value"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, "http_version", "HTTP/1.1"),
    ],
)
async def test_refusals_are_told_to_the_peer_the_log_and_the_counters(
    come: Come,
    counters: Counters,
    log_lines: Lines,
    sent: bytes,
    status: int,
    reason: str,
    told: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    visitor, answer = await come(sent)
    assert visitor is None
    assert trio.current_time() - began <= 3
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    error = json.loads(body)
    assert (error["success"], error["error"]) == (False, reason)
    assert told in error["message"]
    await come(sent)
    [(_, event, fields)] = log_lines
    assert (event, fields["reason"], fields["port"]) == ("handshake refused", reason, "HTTP")
    assert fields["detail"] in error["message"]
    assert fields["fix"]
    assert counted(counters) == {"handshakes_refused": reason}


@pytest.mark.parametrize(("sent", "level"), [(b"", "DEBUG"), (b"GET /", "INFO")])
async def test_peers_that_leave(
    come: Come, log_lines: Lines, sent: bytes, level: str, autojump_clock: trio.testing.MockClock
) -> None:
    pieces = [sent] if sent else []
    assert await come(*pieces, hang_up=True) == (None, b"")
    assert [line[:2] for line in log_lines] == [(level, "peer left during the handshake")]


async def test_a_stranger_that_hangs_up_is_judged_by_what_came(
    come: Come, counters: Counters, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    assert await come(b"\x16\x03\x01", hang_up=True) == (None, b"")
    assert trio.current_time() == began
    assert counted(counters) == {"strangers": "tls_on_plain_port"}


async def test_a_connection_that_breaks(
    counters: Counters, seats: Seats, log_lines: Lines, autojump_clock: trio.testing.MockClock
) -> None:
    entrance = Entrance(limits=LIMITS, reporter=Reporter(counters), trusted=TRUSTED)
    ours, theirs = trio.testing.memory_stream_pair()

    async def reset() -> None:
        raise trio.BrokenResourceError

    theirs.receive_stream.receive_some_hook = reset
    with seats.one() as seat:
        assert await entrance.admit(theirs, None, seat) is None
    assert log_lines[0][1] == "peer left during the handshake"
    # One that is gone when it is to be told is nobody's failure.
    ours.receive_stream.close()
    await entrance.refuse(theirs, None, seats.refusal())
    assert log_lines[-1][:2] == ("DEBUG", "peer left before its answer")


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_proxy_header_names_the_client(
    come: Come, header: bytes, size: int, autojump_clock: trio.testing.MockClock
) -> None:
    sent = header + HEAD
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    client = Endpoint.of("192.0.2.1", 56324)
    assert await come(*pieces, peer=PROXY) == (Visitor(client, HEAD), b"")
    assert await come(HEAD, peer=PROXY) == (Visitor(PROXY, HEAD), b"")


async def test_refusals_behind_a_proxy_name_the_client(
    come: Come, counters: Counters, log_lines: Lines, autojump_clock: trio.testing.MockClock
) -> None:
    _, answer = await come(V1, peer=PROXY)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert counted(counters) == {"handshakes_refused": "silent_peer"}
    assert log_lines[0][2]["peer"] == "192.0.2.1:56324"
    assert await come(b"PROXY nonsense\r\n", peer=PROXY) == (None, b"")
    assert log_lines[1][2]["reason"] == "proxy_header_malformed"
    assert log_lines[1][2]["peer"] == "10.0.0.1:40000"


async def test_the_seats_of_an_address_are_those_of_the_client(
    come: Come, seats: Seats, autojump_clock: trio.testing.MockClock
) -> None:
    with ExitStack() as taken:
        taken.enter_context(seats.one()).take(Endpoint.of("192.0.2.1"))
        visitor, answer = await come(V1 + HEAD, peer=PROXY)
        assert visitor is None
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"all 1 connections" in answer
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert (await come(HEAD, peer=PROXY))[0] is not None
    assert (await come(V1 + HEAD, peer=PROXY))[0] is not None
