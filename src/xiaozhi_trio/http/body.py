"""Request bodies within bounds of size and time."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.http.errors import RequestRefused

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARDED_BYTES = 8 * 1024 * 1024
"""How much of a body nobody wants is taken in before the connection is cut."""
DISCARD_SECONDS = 10.0
"""How long that may take."""


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises `RequestRefused`: 413 from the first byte above `limit` on, 408 where the
    body is not complete after `seconds`.
    """
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(seconds):
        async with aclosing(request.stream()) as stream:
            async for part in stream:
                size += len(part)
                if size > limit:
                    raise RequestRefused(
                        413,
                        "body_too_large",
                        f"The body is larger than {limit} bytes; send less. "
                        f"请求体超过 {limit} 字节。",
                    )
                parts.append(part)
        return b"".join(parts)
    raise RequestRefused(
        408,
        "body_timeout",
        f"The body did not arrive within {seconds:g} s; send it again. "
        f"请求体未在 {seconds:g} 秒内到达。",
    )


class UnreadBodyMiddleware:
    """Throws away, within bounds, what an endpoint leaves unread of a request body.

    A connection closed over unread bytes is reset, and a reset can destroy the answer
    before the peer has read it. Besides, Hypercorn hands a body to the application
    through a bounded queue and waits for room in it even to end a request, so a body
    that is left there would hold its connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        complete = False

        async def receive_noting_the_end() -> Message:
            nonlocal complete
            message = await receive()
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def discard(limit: float) -> None:
            taken = 0
            while not complete and taken <= limit:
                message = await receive_noting_the_end()
                taken += len(message.get("body", b""))

        async def send_after_the_body(message: Message) -> None:
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            with trio.move_on_after(DISCARD_SECONDS):
                await discard(DISCARDED_BYTES)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(discard, float("inf"))
                await send(message)
                nursery.cancel_scope.cancel()

        await self._app(scope, receive_noting_the_end, send_after_the_body)
