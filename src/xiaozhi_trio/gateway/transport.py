"""The stream under TLS or a WebSocket: gives back what was read of it to find out what it is."""

from __future__ import annotations

from collections import deque

import trio


class Transport(trio.abc.Stream):
    """Another stream whose first bytes have been read already.

    Each of `pieces` comes out of a `receive_some` of its own, then what the stream
    beneath has. With `answer_first` all but the first piece is held back until
    something is sent. Closing ends a receive in progress; the stream beneath stays open,
    since it belongs to whoever accepted it and may still carry a last word.
    """

    def __init__(
        self, beneath: trio.abc.Stream, *pieces: bytes, answer_first: bool = False
    ) -> None:
        self._beneath = beneath
        self._answered = trio.Event()
        if not answer_first:
            self._answered.set()
        self._pieces = deque(piece for piece in pieces if piece)
        self._sending = trio.Lock()
        self._receiving = trio.CancelScope()
        self._has_begun = False
        self._closed = False
        self._intact = True

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Raises `trio.ClosedResourceError` as soon as the transport is closed."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        with trio.CancelScope() as self._receiving:
            if self._has_begun:
                await self._answered.wait()
            self._has_begun = True
            if self._pieces:
                piece = self._pieces.popleft()
                if max_bytes is not None and len(piece) > max_bytes:
                    self._pieces.appendleft(piece[max_bytes:])
                return piece[:max_bytes]
            return bytes(await self._beneath.receive_some(max_bytes))
        raise trio.ClosedResourceError("this transport was closed")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `trio.ClosedResourceError` where the transport is closed."""
        async with self._sending:
            self._check_open()
            self._answered.set()
            await self._send_beneath(data)

    async def _send_beneath(self, data: bytes | bytearray | memoryview) -> None:
        # Stays false where the send is cancelled: nobody knows how much of it went out.
        self._intact = False
        await self._beneath.send_all(data)
        self._intact = True

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream beneath."""
        await self._beneath.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Let nothing more through, but for a send that has begun."""
        self._closed = True
        self._receiving.cancel()
        await trio.lowlevel.checkpoint()

    async def close_with(self, last_word: bytes) -> None:
        """Close, and send this once the send that has begun is through.

        Sends nothing where an earlier send was cut off, because the peer could not
        make sense of it. Raises `trio.BrokenResourceError` where the peer is gone.
        """
        await self.aclose()
        async with self._sending:
            if self._intact:
                await self._send_beneath(last_word)
