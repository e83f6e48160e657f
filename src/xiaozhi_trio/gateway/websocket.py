"""The WebSocket of one peer: trio-websocket 0.12.2 behind the few calls that are used.

What the library leaves to its user is done here: its queue and buffer are sized so
that pings are answered while a session is busy, its unbounded wait for the peer's
close frame is not used, and a peer that breaks the protocol gets the close frame
that RFC 6455 asks for instead of a bare end of the stream.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream
from wsproto.frame_protocol import CloseReason, FrameProtocol
from wsproto.utilities import LocalProtocolError

from xiaozhi_trio.gateway.intake import Intake, MeteredStream
from xiaozhi_trio.gateway.transport import Transport
from xiaozhi_trio.wire.opening import PeerLeft
from xiaozhi_trio.wire.upgrade import clean_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketConnection

    from xiaozhi_trio.config.settings import LimitSettings
    from xiaozhi_trio.wire.closing import Closing

_QUEUE_MESSAGES: Final = 64
"""While more than these wait unread, the library answers no ping and sees no disconnect."""
_RECEIVE_BYTES: Final = 65_536
_CLOSE_FRAME_SECONDS: Final = 1.0
_JUST_VANISHED: Final = CloseReason.ABNORMAL_CLOSURE
"""Said by the library where the stream ends, also where `MeteredStream` ends it."""


class WebSocket:
    """An open WebSocket. One task may send, one may receive."""

    def __init__(
        self,
        connection: WebSocketConnection,
        transport: Transport,
        metered: MeteredStream,
        intake: Intake,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._metered = metered
        self._intake = intake

    @property
    def close_code(self) -> int | None:
        """How it ended, by RFC 6455 code: 1006 where the peer just vanished; None while open."""
        closed = self._connection.closed
        return None if closed is None else closed.code

    @property
    def exceeded(self) -> Closing | None:
        """The limit that the peer has exceeded, for which the connection ends."""
        return self._intake.exceeded

    async def receive(self) -> str | bytes:
        """The next message. Raises `trio.EndOfChannel` once the peer is gone or sends too much."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed:
            raise trio.EndOfChannel from None

    async def send(self, payload: str | bytes) -> None:
        """Send one message. Raises `trio.BrokenResourceError` where the peer is gone.

        Must not be cancelled unless the connection ends with it: half a frame may
        have gone out, and nothing that follows would be understood.
        """
        try:
            await self._connection.send_message(payload)
        except ConnectionClosed:
            raise trio.BrokenResourceError("the peer is gone") from None

    async def abort(self) -> None:
        """Give the peer up: `receive` ends, nothing more is sent."""
        await self._transport.aclose()

    async def close(self, closing: Closing) -> None:
        """Send the close frame that is due, if any, and nothing after it.

        Takes at most a second and does not wait for the peer's: firmware 2.4.2 sends
        none. The stream beneath is left open, for whoever accepted it to hang up.
        """
        if self._metered.has_sent_close:
            # The library has answered the peer's.
            return
        ended = self._connection.closed
        if ended is None or (self.exceeded is not None and ended.code == _JUST_VANISHED):
            last_word = _close_frame(closing.code, closing.told)
        elif ended.code != _JUST_VANISHED:
            last_word = _close_frame(ended.code, ended.reason or "")
        else:
            return
        with trio.move_on_after(_CLOSE_FRAME_SECONDS):
            try:
                await self._transport.close_with(last_word)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The peer has gone first; there is nobody left to tell.
                return


def _close_frame(code: int, reason: str) -> bytes:
    return bytes(FrameProtocol(client=False, extensions=[]).close(code, reason))


@asynccontextmanager
async def accept_websocket(
    stream: trio.abc.Stream, *, key: bytes, received: bytes, limits: LimitSettings
) -> AsyncIterator[WebSocket]:
    """Answer 101 to an upgrade that has been checked and hold the WebSocket open for the block.

    `received` is what the peer has sent behind its request head. Raises `PeerLeft`,
    alone or in an exception group, where the peer does not take the answer or is lost
    in a way that the library cannot tell `receive`.
    """
    intake = Intake(limits)
    metered = MeteredStream(stream, intake)
    # wsproto 1.3.2 drops what comes before it has answered, alone or in one piece with the head.
    transport = Transport(metered, clean_head(key), intake.pass_on(received), answer_first=True)
    try:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(
                nursery,
                transport,
                message_queue_size=_QUEUE_MESSAGES,
                max_message_size=limits.message_bytes,
                receive_buffer_size=_RECEIVE_BYTES,
            )
            try:
                with trio.fail_after(limits.send_seconds):
                    connection = await request.accept()
            except (ConnectionClosed, trio.TooSlowError) as error:
                raise PeerLeft("the peer did not take the answer to its upgrade") from error
            yield WebSocket(connection, transport, metered, intake)
            nursery.cancel_scope.cancel()
    except* LocalProtocolError as errors:
        # The library answers a ping that it finds behind the message at which the
        # peer was lost; wsproto objects, because the connection is closed.
        raise PeerLeft("the peer was lost while it pinged") from errors
