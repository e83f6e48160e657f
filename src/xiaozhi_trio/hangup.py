"""Closing a connection so that the peer gets to read what was sent last."""

from __future__ import annotations

import contextlib
from typing import Final

import trio

LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 4 * 1024 * 1024


async def hang_up(stream: trio.abc.Stream) -> None:
    """Say that we are done, let the peer finish for a moment, and close.

    A socket closed with unread data sends a reset, which can overtake and destroy
    the answer on its way. So what still comes is read and thrown away, within
    `LINGER_SECONDS` and a bound on the bytes.
    """
    try:
        # A peer that has gone is the end that is wanted here.
        with (
            trio.move_on_after(LINGER_SECONDS),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            thrown_away = 0
            while thrown_away < _LINGER_BYTES:
                data = await stream.receive_some()
                if not data:
                    break
                thrown_away += len(data)
    finally:
        await trio.aclose_forcefully(stream)
