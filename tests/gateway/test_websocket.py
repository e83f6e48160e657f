"""The WebSocket under hostile and unlucky peers, in memory and on a virtual clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from xiaozhi_trio.config.settings import LimitSettings
from xiaozhi_trio.gateway.connection import PEER_STALLED, converse
from xiaozhi_trio.gateway.websocket import WebSocket, accept_websocket
from xiaozhi_trio.wire.closing import NORMAL, PEER_GONE, Closing
from xiaozhi_trio.wire.opening import PeerLeft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LIMITS = LimitSettings(message_bytes=4096, send_seconds=1)
MASK = bytes(4)
PING = b"\x89\x80" + MASK


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros."""
    if len(payload) < 126:
        return bytes([first, 0x80 | len(payload)]) + MASK + payload
    return bytes([first, 0x80 | 126]) + len(payload).to_bytes(2) + MASK + payload


def closing_frame(code: int, reason: bytes = b"") -> bytes:
    return bytes([0x88, 2 + len(reason)]) + code.to_bytes(2) + reason


@asynccontextmanager
async def opened(
    received: bytes = b"",
) -> AsyncIterator[tuple[WebSocket, trio.testing.MemoryReceiveStream, Any]]:
    """The server's end, and both directions of the client's, the 101 taken off."""
    ours, theirs = trio.testing.memory_stream_pair()
    # Of the virtual clock: what would never end fails.
    with trio.fail_after(1000):
        async with accept_websocket(theirs, key=KEY, received=received, limits=LIMITS) as websocket:
            assert (await ours.receive_some()).startswith(b"HTTP/1.1 101 ")
            yield websocket, ours, theirs


async def test_what_came_with_the_head_is_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(frame(0x81, b"one") + frame(0x82, b"two")[:3]) as (websocket, ours, _):
        assert await websocket.receive() == "one"
        await ours.send_all(frame(0x82, b"two")[3:])
        assert await websocket.receive() == b"two"
        assert websocket.close_code is None


async def test_fragments_with_a_ping_between_them(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, ours, _):
        await ours.send_all(frame(0x01, b"a") + frame(0x89, b"p") + frame(0x80, b"b"))
        assert await websocket.receive() == "ab"
        assert await ours.receive_some() == b"\x8a\x01p"


async def test_pings_are_answered_while_nothing_is_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (_, ours, _):
        await ours.send_all(frame(0x81, b"x") * 60 + PING)
        with trio.fail_after(1):
            assert await ours.receive_some() == b"\x8a\x00"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01x", 1002),
        (frame(0x83), 1002),
        (frame(0xC1, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x89, b"x" * 126), 1002),
        (frame(0x88, b"x"), 1002),
        (frame(0x81, b"\xff"), 1007),
    ],
)
async def test_broken_protocol_gets_its_close_frame(
    sent: bytes, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened() as (websocket, ours, _):
        await ours.send_all(sent)
        with pytest.raises(trio.EndOfChannel):
            await websocket.receive()
        assert websocket.close_code == code
        await websocket.close(PEER_GONE)
        answer = await ours.receive_some()
    assert answer[0] == 0x88
    assert int.from_bytes(answer[2:4]) == code


async def test_too_large_a_message_is_1009(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, ours, _):
        await ours.send_all(frame(0x82, b"last") + frame(0x82, bytes(4097)))
        assert await websocket.receive() == b"last"
        with pytest.raises(trio.EndOfChannel):
            await websocket.receive()
        await websocket.close(websocket.exceeded)
        assert await ours.receive_some() == closing_frame(
            1009, b"message_too_large: at most 4096 bytes (limits.message_bytes)"
        )
        with trio.move_on_after(1):
            assert await ours.receive_some() == b""


async def test_close_says_why_and_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, ours, _):
        began = trio.current_time()
        await websocket.close(Closing(NORMAL, "idle"))
        assert trio.current_time() == began
        assert await ours.receive_some() == closing_frame(1000, b"idle")
        # Nothing may follow a close frame, not even the answer to a ping.
        await ours.send_all(PING)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.EndOfChannel):
            await websocket.receive()
        with trio.move_on_after(1) as patience:
            await ours.receive_some()
        assert patience.cancelled_caught


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 4000])
async def test_close_frame_of_the_peer_is_answered_once(
    code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with opened() as (websocket, ours, theirs):
        await ours.send_all(frame(0x88, code.to_bytes(2)))
        with pytest.raises(trio.EndOfChannel):
            await websocket.receive()
        await websocket.close(PEER_GONE)
        with pytest.raises(trio.BrokenResourceError):
            await websocket.send("late")
        await theirs.send_stream.aclose()
        assert b"".join([part async for part in ours]) == closing_frame(code)


async def test_close_frame_of_the_peer_is_answered_where_the_library_cannot_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its answer waits behind a send that is under way; the close comes before its turn."""
    async with opened() as (websocket, ours, theirs):
        deliver = theirs.send_stream.send_all_hook
        may_go_on = trio.Event()

        async def deliver_late() -> None:
            await may_go_on.wait()
            await deliver()

        theirs.send_stream.send_all_hook = deliver_late
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.send, "x")
            await trio.testing.wait_all_tasks_blocked()
            await ours.send_all(frame(0x88, (1001).to_bytes(2)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(websocket.close, PEER_GONE)
            await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()
        await theirs.send_stream.aclose()
        assert b"".join([part async for part in ours]) == b"\x81\x01x" + closing_frame(1001)


async def test_close_gives_up_on_a_peer_that_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (websocket, _, theirs):
        theirs.send_stream.send_all_hook = trio.sleep_forever
        began = trio.current_time()
        await websocket.close(Closing(NORMAL, "idle"))
        assert trio.current_time() - began == 1


async def test_close_of_a_peer_that_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, ours, _):
        # Not seen yet: the reader has not run.
        ours.send_stream.close()
        ours.receive_stream.close()
        await websocket.close(Closing(NORMAL, "idle"))


async def test_nothing_follows_a_send_that_was_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (websocket, ours, theirs):
        deliver = theirs.send_stream.send_all_hook
        theirs.send_stream.send_all_hook = trio.sleep_forever
        with trio.move_on_after(1):
            await websocket.send("x")
        theirs.send_stream.send_all_hook = deliver
        await websocket.close(Closing(NORMAL, "idle"))
        await deliver()
        assert await ours.receive_some() == b"\x81\x01x"


async def test_ping_behind_the_message_at_which_the_peer_was_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The library's reader raises in its nursery; it must come out as an ordinary end."""
    with pytest.RaisesGroup(PeerLeft, allow_unwrapped=True):
        async with opened() as (websocket, ours, theirs):
            await ours.send_all(frame(0x81, b"x") * 70 + PING)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send_stream.close()
            with pytest.raises(trio.BrokenResourceError):
                await websocket.send("y")
            while True:
                await websocket.receive()


async def test_peer_that_does_not_take_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ours.receive_stream.close()
    with pytest.RaisesGroup(PeerLeft, flatten_subgroups=True):
        async with accept_websocket(theirs, key=KEY, received=b"", limits=LIMITS):
            pytest.fail("accepted")


# The writer


class Talker:
    """A session that says what it is given and then ends, or waits for the peer to go."""

    def __init__(self, *payloads: str | bytes, until_gone: bool = False) -> None:
        self._payloads = payloads
        self._until_gone = until_gone
        self._put, self._take = trio.open_memory_channel[str | bytes](1)
        self.outbox = self

    async def next_payload(self) -> str | bytes:
        return await self._take.receive()

    def close(self) -> None:
        self._put.close()

    async def run(self, receive: Callable[[], Any]) -> Closing:
        for payload in self._payloads:
            await self._put.send(payload)
        while self._until_gone:
            try:
                await receive()
            except trio.EndOfChannel:
                return PEER_GONE
        return Closing(NORMAL, "said")

    def end(self, closing: Closing) -> None:
        raise AssertionError(closing)


async def test_writer_sends_all_that_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, ours, _):
        closing = await converse(websocket, Talker("a", b"b", "c"), send_seconds=1)
        assert closing == Closing(NORMAL, "said")
        assert await ours.receive_some() == b"\x81\x01a\x82\x01b\x81\x01c"


async def test_stalled_send_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, _, theirs):
        theirs.send_stream.send_all_hook = trio.sleep_forever
        began = trio.current_time()
        session = Talker(*"abcdef", until_gone=True)
        assert await converse(websocket, session, send_seconds=2) == PEER_STALLED
        assert trio.current_time() - began == 2


async def test_session_blocked_on_its_outbox_learns_that_the_peer_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (websocket, ours, _):
        await ours.aclose()
        with trio.fail_after(1):
            session = Talker(*("x" * 50), until_gone=True)
            assert await converse(websocket, session, send_seconds=1) == PEER_GONE


async def test_cancelled_conversation_ends_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as (websocket, _, theirs):
        theirs.send_stream.send_all_hook = trio.sleep_forever
        with trio.move_on_after(0.5) as scope:
            await converse(websocket, Talker("a", until_gone=True), send_seconds=10)
        assert scope.cancelled_caught
        assert trio.current_time() == scope.deadline
