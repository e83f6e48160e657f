"""A device's end of a real WebSocket, so that a simulated device can talk to any server."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketConnection

_QUEUE_MESSAGES: Final = 64
"""The library sees neither pings nor the end behind more unread messages than these."""
_DISCONNECT_SECONDS: Final = 5.0


class WebSocketLink:
    """A `Link` over the client of trio-websocket."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    @property
    def close_code(self) -> int | None:
        """How it ended, by RFC 6455 code; None while it is open."""
        closed = self._connection.closed
        return None if closed is None else closed.code

    async def send(self, payload: str | bytes) -> None:
        """Send one message. Raises `trio.BrokenResourceError` where the server is gone."""
        try:
            await self._connection.send_message(payload)
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the server is gone") from error

    async def receive(self) -> str | bytes:
        """The next message. Raises `trio.EndOfChannel` once the server is gone."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed:
            raise trio.EndOfChannel from None

    async def aclose(self) -> None:
        """Say goodbye and close."""
        await self._connection.aclose()


class DialledLink(WebSocketLink):
    """A link whose socket is ours to drop."""

    def __init__(self, connection: WebSocketConnection, connected: trio.SocketStream) -> None:
        """`connected` is what the connection goes over, below TLS."""
        super().__init__(connection)
        self._connected = connected

    def hang_up(self, *, reset: bool = False) -> None:
        """Vanish without a goodbye, as firmware does: by a FIN, or by a RST. Does not wait."""
        if reset:
            self._connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connected.socket.close()


@asynccontextmanager
async def dial(
    url: str, *, device_id: str, client_id: str = "", token: str = "", binary_version: int = 1
) -> AsyncIterator[DialledLink]:
    """Connect to a server with the headers that firmware 2.4.2 sends, for the block.

    Raises, in an exception group, `trio_websocket.ConnectionRejected` where the server
    refuses and `trio_websocket.HandshakeError` where it is no WebSocket server.
    """
    headers = [
        ("Protocol-Version", str(binary_version)),
        ("Device-Id", device_id),
        ("Client-Id", client_id),
    ]
    if token:
        headers.insert(0, ("Authorization", f"Bearer {token}"))
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "wss" else 80)
    connected = await trio.open_tcp_stream(address.hostname or "", port)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = connected
    if address.scheme == "wss":
        stream = trio.SSLStream(
            connected, ssl.create_default_context(), server_hostname=address.hostname
        )
    try:
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                stream,
                address.netloc,
                urlunsplit(("", "", address.path or "/", address.query, "")),
                extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                message_queue_size=_QUEUE_MESSAGES,
            )
            try:
                yield DialledLink(connection, connected)
                with trio.move_on_after(_DISCONNECT_SECONDS):
                    await connection.aclose()
            finally:
                nursery.cancel_scope.cancel()
    finally:
        # The library leaves the socket open where the server closed first.
        await trio.aclose_forcefully(stream)
