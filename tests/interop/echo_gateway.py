"""The real gateway with a session that echoes, as a program of its own.

Usage: echo_gateway.py MESSAGE_BYTES

Prints its address as one JSON object and serves until its standard input ends. What
tests of RFC 6455 ask of a server, to send back each message as it came, no session of
the product does; everything beneath the session is the product's.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings, ServerSettings
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.wire.closing import NORMAL, PEER_GONE, Closing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xiaozhi_trio.wire.handshake import Handshake


class Echoes:
    """The outbox of an echo."""

    def __init__(self) -> None:
        self.put, self._take = trio.open_memory_channel[str | bytes](0)

    async def next_payload(self) -> str | bytes:
        return await self._take.receive()

    def close(self) -> None:
        self.put.close()


class EchoSession:
    """Sends every message back; `bye` ends it with 1000."""

    def __init__(self, _handshake: Handshake, _session_id: str) -> None:
        self.outbox = Echoes()

    async def run(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        while True:
            try:
                message = await receive()
            except trio.EndOfChannel:
                return PEER_GONE
            if message == "bye":
                return Closing(NORMAL, "bye")
            await self.outbox.put.send(message)

    def end(self, closing: Closing) -> None:
        """The end of its peer is all that ends it."""


async def main(message_bytes: int) -> None:
    roster = Roster()
    gateway = Gateway(
        server=ServerSettings(host="127.0.0.1", websocket_port=0, websocket_path="/"),
        limits=LimitSettings(
            message_bytes=message_bytes,
            # What the suites send as fast as they can has tests of its own.
            messages_per_second=100_000,
            bytes_per_second=1_073_741_824,
        ),
        authenticator=Authenticator(None),
        sessions=EchoSession,
        roster=roster,
        counters=Counters(),
        health=lambda: {"status": "ok", "sessions": len(roster)},
    )
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(gateway.serve)
        host, port = addresses[0]
        print(json.dumps({"host": host, "port": port}), flush=True)  # noqa: T201 - its result
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as until:
            while await until.receive_some():
                pass
        gateway.stop()


if __name__ == "__main__":
    logger.remove()
    trio.run(main, int(sys.argv[1]))
