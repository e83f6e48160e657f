"""A gateway with a fake session, reached over memory streams."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from loguru import logger
from trio_websocket import wrap_client_stream

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.wire.closing import NORMAL, PEER_GONE, Closing
from xiaozhi_trio.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from trio_websocket import WebSocketConnection

    from xiaozhi_trio.wire.handshake import Handshake

PEER = Endpoint.of("192.0.2.7", 5000)
KEY = base64.b64encode(b"0123456789abcdef")
PATIENCE = 1000
"""Seconds of a virtual clock, so that what would never end fails."""


class FakeOutbox:
    def __init__(self) -> None:
        self._put, self._take = trio.open_memory_channel[str | bytes](8)

    async def put(self, payload: str | bytes) -> None:
        await self._put.send(payload)

    async def next_payload(self) -> str | bytes:
        return await self._take.receive()

    def close(self) -> None:
        self._put.close()


class EchoSession:
    """Echoes until the peer goes; `bye` ends it, `crash` is a bug."""

    def __init__(self, handshake: Handshake, session_id: str) -> None:
        self.handshake = handshake
        self.session_id = session_id
        self.outbox = FakeOutbox()
        self._ending = trio.Event()
        self._closing = PEER_GONE

    async def run(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._echo, receive, nursery.cancel_scope)
            await self._ending.wait()
            nursery.cancel_scope.cancel()
        return self._closing

    async def _echo(self, receive: Callable[[], Awaitable[str | bytes]], scope: object) -> None:
        while True:
            try:
                message = await receive()
            except trio.EndOfChannel:
                self.end(PEER_GONE)
                return
            if message == "bye":
                self.end(Closing(NORMAL, "goodbye"))
                return
            if message == "crash":
                raise RuntimeError("a bug in the session")
            await self.outbox.put(message)

    def end(self, closing: Closing) -> None:
        if not self._ending.is_set():
            self._closing = closing
            self._ending.set()


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


def upgrade(
    target: str = "/xiaozhi/v1/",
    *headers: tuple[str, str],
    connection: str = "Upgrade",
    host: str | None = "example.org",
) -> bytes:
    lines = [f"GET {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [
        f"Connection: {connection}",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@attrs.define
class House:
    """A gateway and what it did."""

    gateway: Gateway
    counters: Counters
    roster: Roster
    sessions: list[Any]
    log: list[dict[str, Any]]
    closed: trio.Event | None = None
    """Set once `serve` has returned, where it runs."""

    @asynccontextmanager
    async def peer(self, address: Endpoint | None = PEER) -> AsyncIterator[trio.StapledStream]:
        """One connection to the gateway; the block ends when the gateway is done with it."""
        ours, theirs = trio.testing.memory_stream_pair()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.gateway.attend, theirs, address)
                yield ours
                await ours.aclose()

    async def attend(self, theirs: trio.abc.Stream) -> None:
        """One connection of an unknown peer, to its end."""
        with trio.fail_after(PATIENCE):
            await self.gateway.attend(theirs, None)

    async def answer(self, request: bytes, address: Endpoint | None = PEER) -> bytes:
        """All that comes back to these bytes until the gateway closes."""
        async with self.peer(address) as stream:
            await stream.send_all(request)
            return await everything(stream)

    @asynccontextmanager
    async def device(
        self, target: str = "/xiaozhi/v1/", *headers: tuple[bytes, bytes]
    ) -> AsyncIterator[WebSocketConnection]:
        """A WebSocket client that is let in; the block ends when the gateway is done with it."""
        async with self.peer() as stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "example.org", target, extra_headers=list(headers)
            )
            yield websocket
            with trio.move_on_after(5):
                await websocket.aclose()
            nursery.cancel_scope.cancel()

    upgrade = staticmethod(upgrade)
    everything = staticmethod(everything)

    def counted(self, name: str, **labels: str) -> int:
        wanted = tuple(sorted(labels.items()))
        counts = {(count.name, count.labels): count.value for count in self.counters.snapshot()}
        return counts.get((name, wanted), 0)

    def lines(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["message"] == message]


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """Log records as dicts: message, level, and the bound fields."""
    records: list[dict[str, Any]] = []

    def sink(message: Any) -> None:
        record = message.record
        records.append(
            {
                "message": record["message"],
                "level": record["level"].name,
                "text": str(message),
                **record["extra"],
            }
        )

    handler = logger.add(sink, level="TRACE", format="{message} {extra}", diagnose=False)
    yield records
    logger.remove(handler)


@pytest.fixture
def make_house(log: list[dict[str, Any]]) -> Callable[..., House]:
    def make(
        *,
        limits: LimitSettings | None = None,
        server: ServerSettings | None = None,
        authenticator: Authenticator | None = None,
        factory: Callable[[Handshake, str], Any] = EchoSession,
        tls: Any = None,
    ) -> House:
        sessions: list[Any] = []

        def build(handshake: Handshake, session_id: str) -> Any:
            session = factory(handshake, session_id)
            sessions.append(session)
            return session

        counters, roster = Counters(), Roster()
        gateway = Gateway(
            server=server or ServerSettings(host="127.0.0.1", websocket_port=0),
            limits=limits or LimitSettings(),
            authenticator=authenticator or Authenticator(None),
            sessions=build,
            roster=roster,
            counters=counters,
            health=lambda: {"status": "ok", "sessions": len(roster)},
            tls=tls,
        )
        return House(gateway, counters, roster, sessions, log)

    return make


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()
