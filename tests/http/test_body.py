from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from xiaozhi_trio.http import body
from xiaozhi_trio.http.body import UnreadBodyMiddleware, read_body
from xiaozhi_trio.http.errors import RequestRefused

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


def body_of(*parts: bytes, complete: bool = True) -> Receive:
    """A receive callable that gives these parts, then waits for ever or says that it was all."""
    remaining = list(parts)

    async def receive() -> Message:
        if not remaining and not complete:
            await trio.sleep_forever()
        part = remaining.pop(0) if remaining else b""
        more = bool(remaining) or not complete
        return {"type": "http.request", "body": part, "more_body": more}

    return receive


async def test_a_body_is_put_together() -> None:
    request = Request(SCOPE, body_of(b"ab", b"", b"cd"))
    assert await read_body(request, limit=4, seconds=1) == b"abcd"


async def test_no_body_is_an_empty_one() -> None:
    assert await read_body(Request(SCOPE, body_of()), limit=4, seconds=1) == b""


async def test_one_byte_too_many_is_refused() -> None:
    request = Request(SCOPE, body_of(b"ab", b"cde", complete=False))
    with pytest.raises(RequestRefused) as caught:
        await read_body(request, limit=4, seconds=1)
    assert (caught.value.status, caught.value.reason) == (413, "body_too_large")


async def test_a_body_that_stalls_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    request = Request(SCOPE, body_of(b"ab", complete=False))
    with pytest.raises(RequestRefused) as caught:
        await read_body(request, limit=4, seconds=7)
    assert (caught.value.status, caught.value.reason) == (408, "body_timeout")
    assert trio.current_time() == pytest.approx(7, abs=0.01)


async def test_a_cancelled_read_is_cancelled_and_not_refused() -> None:
    request = Request(SCOPE, body_of(b"ab", complete=False))
    with trio.move_on_after(0) as scope:
        await read_body(request, limit=4, seconds=1000)
    assert scope.cancelled_caught


async def answer_without_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("done")(scope, receive, send)


class Peer:
    """A server's queue of body parts that the end of the answer waits for, as Hypercorn's does."""

    def __init__(self, *, parts: int, size: int = 1, endless: bool = False) -> None:
        self.left = parts
        self.size = size
        self.endless = endless
        self.taken = 0
        self.sent: list[Message] = []
        self.room = trio.Event()

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self.left == 0 and self.endless:
            await trio.sleep_forever()
        self.left -= 1
        self.taken += 1
        if self.left <= 0:
            self.room.set()
        more = self.left > 0 or self.endless
        return {"type": "http.request", "body": b"x" * self.size, "more_body": more}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await self.room.wait()


async def test_an_unread_body_is_taken_in_before_the_answer_ends(autojump_clock: Any) -> None:
    peer = Peer(parts=100)
    with trio.fail_after(1):
        await UnreadBodyMiddleware(answer_without_reading)(SCOPE, peer.receive, peer.send)
    assert peer.taken == 100
    assert [message["type"] for message in peer.sent] == [
        "http.response.start",
        "http.response.body",
    ]


async def test_an_oversized_body_is_cut_but_the_answer_still_ends(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    monkeypatch.setattr(body, "DISCARDED_BYTES", 50)
    peer = Peer(parts=100, size=10)
    taken_at_the_answer = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            taken_at_the_answer.append(peer.taken)
        await peer.send(message)

    with trio.fail_after(1):
        await UnreadBodyMiddleware(answer_without_reading)(SCOPE, peer.receive, send)
    assert taken_at_the_answer == [6]


async def test_a_body_that_never_comes_does_not_hold_the_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = Peer(parts=1, endless=True)
    with trio.fail_after(body.DISCARD_SECONDS + 1):
        await UnreadBodyMiddleware(answer_without_reading)(SCOPE, peer.receive, peer.send)
    assert len(peer.sent) == 2


async def test_a_body_that_was_read_is_not_waited_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        text = await Request(scope, receive).body()
        await PlainTextResponse(text)(scope, receive, send)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await UnreadBodyMiddleware(app)(SCOPE, body_of(b"whole"), send)
    assert sent[1]["body"] == b"whole"


async def test_other_scopes_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    lifespan = {"type": "lifespan"}
    receive = body_of()

    async def send(message: Message) -> None:
        raise AssertionError

    await UnreadBodyMiddleware(app)(lifespan, receive, send)
    assert seen == [(lifespan, receive, send)]
