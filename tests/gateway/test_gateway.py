from __future__ import annotations

import errno
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Never

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.wire.closing import GOING_AWAY, Closing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from xiaozhi_trio.wire.handshake import Handshake

DEVICE = (b"Device-Id", b"AA-BB-CC-DD-EE-FF")


class Silent:
    async def next_payload(self) -> None:
        await trio.sleep_forever()

    def close(self) -> None:
        pass


async def close_of(websocket: WebSocketConnection) -> tuple[int, str | None]:
    with pytest.raises(ConnectionClosed) as caught:
        await websocket.get_message()
    return caught.value.reason.code, caught.value.reason.reason


async def test_device_is_echoed_and_leaves_cleanly(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        await websocket.send_message("你好")
        assert await websocket.get_message() == "你好"
        await websocket.send_message(b"\x00\x01")
        assert await websocket.get_message() == b"\x00\x01"
        assert len(house.roster) == 1
        assert house.gateway.connections == 1
    assert house.sessions[0].handshake.device_id == "aa:bb:cc:dd:ee:ff"
    assert len(house.roster) == house.gateway.connections == 0
    assert house.counted("handshakes_accepted") == 1
    assert house.counted("sessions_ended", reason="peer_gone") == 1
    (line,) = house.lines("device disconnected")
    assert line["level"] == "INFO"
    assert line["device"] == "aa:bb:cc:dd:ee:ff"
    assert line["session"] == house.sessions[0].session_id
    assert line["peer"] == "192.0.2.7:5000"
    assert line["peer_code"] == 1000


async def test_session_that_ends_says_why(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        await websocket.send_message("one")
        await websocket.send_message("bye")
        assert await websocket.get_message() == "one"
        assert await close_of(websocket) == (1000, "goodbye")


async def test_crash_is_logged_and_closes_1011_and_the_next_is_served(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        await websocket.send_message("last words")
        await websocket.send_message("crash")
        assert await websocket.get_message() == "last words"
        assert await close_of(websocket) == (1011, "internal_error")
    (line,) = house.lines("connection failed")
    assert "a bug in the session" in line["text"]
    assert house.counted("connection_failures") == 1
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        await websocket.send_message("x")
        assert await websocket.get_message() == "x"


async def test_failing_factory_closes_1011(
    make_house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    def factory(handshake: Handshake, session_id: str) -> Never:
        raise RuntimeError("no model")

    house = make_house(factory=factory)
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        assert await close_of(websocket) == (1011, "internal_error")
    assert house.counted("connection_failures") == 1


async def test_vanished_peer_is_an_info_line(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.peer() as stream:
        await stream.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
        await stream.receive_some()
    (line,) = house.lines("device disconnected")
    assert (line["level"], line["reason"], line["peer_code"]) == ("INFO", "peer_gone", 1006)
    assert house.counted("connection_failures") == 0


async def test_second_connection_replaces_the_first(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async with house.device("/xiaozhi/v1/", DEVICE) as first:
        await first.send_message("x")
        await first.get_message()
        async with house.device("/xiaozhi/v1/", DEVICE) as second:
            assert await close_of(first) == (1000, "replaced")
            await second.send_message("y")
            assert await second.get_message() == "y"
            assert len(house.roster) == 1


async def test_errors_beside_a_cancellation_do_not_escape(
    make_house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """Both at once make a group that no plain `except Exception` catches."""

    class Clumsy:
        def __init__(self, handshake: Handshake, session_id: str) -> None:
            self.outbox = Silent()

        async def run(self, receive: Any) -> Never:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise RuntimeError("clumsy")

        def end(self, closing: Closing) -> Never:
            raise AssertionError

    house = make_house(factory=Clumsy)
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.gateway.attend, theirs, None)
            await ours.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert house.counted("connection_failures") == 1


@pytest.mark.parametrize(
    ("sent", "code", "told"),
    [
        (b"\x82\x80\0\0\0\0" * 201, 1008, "too_many_messages: at most 20 a second"),
        (b"\x89\x80\0\0\0\0" * 201, 1008, "too_many_messages: at most 20 a second"),
        (
            b"\x82\xff" + (2**62).to_bytes(8) + bytes(4),
            1009,
            "message_too_large: at most 262144 bytes",
        ),
        (
            (b"\x82\xfe\xff\xff" + bytes(65_539)) * 5,
            1008,
            "too_many_bytes: at most 16384 a second",
        ),
    ],
)
async def test_a_peer_that_sends_too_much_is_told_the_limit(
    make_house: Any, sent: bytes, code: int, told: str, autojump_clock: trio.testing.MockClock
) -> None:
    house = make_house(limits=LimitSettings(messages_per_second=20, bytes_per_second=16_384))
    async with house.peer() as stream:
        await stream.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(sent)
        with trio.fail_after(5):
            received = await house.everything(stream)
    start = received.index(code.to_bytes(2) + told.encode()) - 2
    assert received[start] == 0x88
    assert received[start + 1] == len(received[start:]) - 2
    (line,) = house.lines("device disconnected")
    assert line["level"] == "WARNING"
    assert line["reason"] == told.partition(":")[0]
    assert line["fix"]
    assert line["detail"].endswith(")")
    assert house.counted("sessions_ended", reason=line["reason"]) == 1
    assert house.counted("connection_failures") == 0


PATIENCE = 10
"""Seconds that anything over a real socket may take on a busy machine."""


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncIterator[trio.SocketStream]:
    """A peer that fails, rather than waits for ever, where the gateway does not answer."""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream(host, port) as stream:
            yield stream


@pytest.fixture
def serve(make_house: Any, nursery: trio.Nursery) -> Callable[..., Awaitable[Any]]:
    async def start(**settings: Any) -> tuple[Any, tuple[str, int]]:
        server = ServerSettings(host="127.0.0.1", websocket_port=0, drain_seconds=0.5)
        house = make_house(server=server, **settings)
        house.closed = trio.Event()

        async def serve(*, task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
            await house.gateway.serve(task_status=task_status)
            house.closed.set()

        addresses: list[tuple[str, int]] = await nursery.start(serve)
        return house, addresses[0]

    return start


@pytest.mark.sockets
async def test_serves_over_sockets_and_drains(serve: Any) -> None:
    house, (host, port) = await serve()
    async with connect(host, port) as silent:
        async with connect(host, port) as stream:
            await stream.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
            assert b" 101 " in await stream.receive_some()
            await stream.send_all(b"\x81\x82\0\0\0\0hi")
            assert await stream.receive_some() == b"\x81\x02hi"
            house.gateway.stop()
            frame = await house.everything(stream)
            assert await house.everything(silent) == b""
        assert frame == b"\x88\x11" + GOING_AWAY.to_bytes(2) + b"server_shutdown"
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(host, port)
    assert house.lines("gateway drains")


async def test_session_that_begins_while_the_server_stops_is_ended(
    house: Any, autojump_clock: trio.testing.MockClock
) -> None:
    def build(handshake: Handshake, session_id: str) -> Any:
        house.gateway.stop()
        return factory(handshake, session_id)

    factory = house.gateway._reception.sessions
    object.__setattr__(house.gateway._reception, "sessions", build)
    async with house.device("/xiaozhi/v1/", DEVICE) as websocket:
        assert await close_of(websocket) == (1001, "server_shutdown")


@pytest.mark.sockets
async def test_drain_does_not_wait_for_a_session_that_will_not_end(make_house: Any) -> None:
    class Deaf:
        def __init__(self, handshake: Handshake, session_id: str) -> None:
            self.outbox = None

        async def run(self, receive: Any) -> None:
            await trio.sleep_forever()

        def end(self, closing: Closing) -> None:
            pass

    server = ServerSettings(host="127.0.0.1", websocket_port=0, drain_seconds=0.1)
    house = make_house(server=server, factory=Deaf)
    house.gateway.stop()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(house.gateway.serve)


@pytest.mark.sockets
async def test_too_many_connections_are_told_so(serve: Any) -> None:
    house, (host, port) = await serve(limits=LimitSettings(connections=1))
    async with connect(host, port) as first:
        await first.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
        assert b" 101 " in await first.receive_some()
        async with connect(host, port) as second:
            await second.send_all(b"GET / HTTP/1.1\r\n\r\n" * 100)
            answer = await house.everything(second)
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "too_many_connections"
    assert house.counted("handshakes_refused", reason="too_many_connections") == 1


@pytest.mark.sockets
async def test_session_is_cut_off_at_the_end_of_the_drain(serve: Any) -> None:
    class Deaf:
        def __init__(self, handshake: Handshake, session_id: str) -> None:
            self.outbox = Silent()

        async def run(self, receive: Any) -> None:
            await trio.sleep_forever()

        def end(self, closing: Closing) -> None:
            pass

    house, (host, port) = await serve(factory=Deaf)
    async with connect(host, port) as stream:
        await stream.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
        assert b" 101 " in await stream.receive_some()
        house.gateway.stop()
        assert await house.everything(stream) == b""
    with trio.fail_after(PATIENCE):
        await house.closed.wait()
    assert house.lines("drain cut short")
    (line,) = house.lines("device disconnected")
    assert line["reason"] == "cut_short"


@pytest.mark.sockets
async def test_a_rush_beyond_all_limits_is_just_closed(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi_trio.gateway.gateway._TURNED_AWAY_AT_ONCE", 0)
    house, (host, port) = await serve(limits=LimitSettings(connections=1))
    async with connect(host, port) as first:
        await first.send_all(house.upgrade("/xiaozhi/v1/?device-id=aabbccddeeff"))
        assert b" 101 " in await first.receive_some()
        async with connect(host, port) as second:
            assert await house.everything(second) == b""
    assert house.counted("handshakes_refused", reason="too_many_connections") == 1


def test_an_address_that_is_gone_is_unknown() -> None:
    from xiaozhi_trio.gateway.gateway import _peer_of

    @attrs.frozen
    class Gone:
        def getpeername(self) -> Never:
            raise OSError(errno.ENOTCONN, "not connected")

    @attrs.frozen
    class Stream:
        socket: Gone

    assert _peer_of(Stream(Gone())) is None
