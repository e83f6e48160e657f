"""A WebSocket whose messages are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xiaozhi_trio.gateway.websocket import WebSocket
    from xiaozhi_trio.session.recording import Tape
    from xiaozhi_trio.wire.closing import Closing


class TapedWebSocket:
    """The same WebSocket, with what is received and what was sent put on a tape."""

    def __init__(self, websocket: WebSocket, tape: Tape) -> None:
        self._websocket = websocket
        self._tape = tape

    @property
    def close_code(self) -> int | None:
        """As of the WebSocket."""
        return self._websocket.close_code

    @property
    def exceeded(self) -> Closing | None:
        """As of the WebSocket."""
        return self._websocket.exceeded

    async def receive(self) -> str | bytes:
        """As of the WebSocket."""
        payload = await self._websocket.receive()
        self._tape.take("device", payload)
        return payload

    async def send(self, payload: str | bytes) -> None:
        """As of the WebSocket; what could not be sent is not recorded."""
        await self._websocket.send(payload)
        self._tape.take("server", payload)

    async def abort(self) -> None:
        """As of the WebSocket."""
        await self._websocket.abort()

    async def close(self, closing: Closing) -> None:
        """As of the WebSocket."""
        self._tape.ended(closing)
        await self._websocket.close(closing)
