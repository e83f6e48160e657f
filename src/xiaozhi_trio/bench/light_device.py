"""A simulated device that costs little: one socket, encoded messages, times of arrival."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import attrs
import orjson
import trio

from xiaozhi_trio.bench.client_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameReader,
    UnexpectedAnswer,
    frame,
    upgrade_request,
)

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_RECEIVE_BYTES: Final = 65_536
_HEAD_BYTES: Final = 16_384
_UPGRADED: Final = b"HTTP/1.1 101"
_HELLO: Final = {
    "type": "hello",
    "version": 1,
    "features": {"mcp": False},
    "transport": "websocket",
    "audio_params": {
        "format": "opus",
        "sample_rate": 16000,
        "channels": 1,
        "frame_duration": 60,
    },
}


def text_frame(message: Mapping[str, Any]) -> bytes:
    """A JSON message as it goes over the socket."""
    return frame(orjson.dumps(message), TEXT)


HELLO: Final = text_frame(_HELLO)


@attrs.frozen
class Message:
    """Something the server sent."""

    at: float
    """When it was read from the socket; seconds of `time.monotonic`, which processes share."""
    body: Mapping[str, Any] | None
    """The JSON of a text message, None for audio."""

    @property
    def kind(self) -> str:
        """`hello`, `tts start`, … and `audio`."""
        if self.body is None:
            return "audio"
        state = self.body.get("state")
        return f"{self.body['type']} {state}" if state else str(self.body["type"])


class LightDevice:
    """One device. For one task that sends and one that receives."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected
        self._frames = FrameReader()
        self._waiting: list[Message] = []

    @classmethod
    async def dial(cls, address: SplitResult, device_id: str) -> LightDevice:
        """Connect and upgrade. Raises `OSError` and `UnexpectedAnswer`."""
        with contextlib.ExitStack() as on_failure:
            connected = on_failure.enter_context(trio.socket.socket())
            await connected.connect((address.hostname, address.port or 80))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            device = cls(connected)
            await device.send(upgrade_request(address, device_id))
            await device._read_head()
            on_failure.pop_all()
        return device

    async def _read_head(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self._socket.recv(_RECEIVE_BYTES)
            head += data
            if not data or len(head) > _HEAD_BYTES:
                raise UnexpectedAnswer(f"no answer to the upgrade came, but {head[:200]!r}")
        head, _, rest = head.partition(b"\r\n\r\n")
        if not head.startswith(_UPGRADED):
            raise UnexpectedAnswer(f"the upgrade was refused: {head[:200]!r}")
        self._take(rest, monotonic())

    async def send(self, encoded: bytes) -> None:
        """Send encoded frames. Raises `OSError`."""
        sent = await self._socket.send(encoded)
        while sent < len(encoded):
            sent += await self._socket.send(encoded[sent:])

    async def hello(self) -> None:
        """Say hello and wait for the server's. Raises as `receive`."""
        await self.send(HELLO)
        await self.wait_for("hello")

    async def wait_for(self, kind: str) -> Message:
        """Read up to a message of this kind and return it; raises as `receive`."""
        while True:
            message = await self.receive()
            if message.kind == kind:
                return message

    async def receive(self) -> Message:
        """The next message. Raises `trio.EndOfChannel` at the end, `OSError` where it breaks."""
        while not self._waiting:
            data = await self._socket.recv(_RECEIVE_BYTES)
            at = monotonic()
            if not data:
                raise trio.EndOfChannel
            pings = self._take(data, at)
            if pings:
                await self.send(pings)
        return self._waiting.pop(0)

    def _take(self, data: bytes, at: float) -> bytes:
        """Keep the messages in `data`; gives the pongs that are due."""
        pongs = b""
        for opcode, payload in self._frames.feed(data):
            if opcode == BINARY:
                self._waiting.append(Message(at, None))
            elif opcode == TEXT:
                self._waiting.append(Message(at, orjson.loads(payload)))
            elif opcode == PING:
                pongs += frame(payload, PONG)
            elif opcode == CLOSE:
                raise trio.EndOfChannel
        return pongs

    def close(self) -> None:
        """Vanish as firmware does, without a word."""
        self._socket.close()
