"""The way from the server to a device, on which nothing may come for a while.

What the server sends meanwhile waits on the way, and comes at once when it flows again, as
over TCP. How much fits on the way is the connection's affair: sockets hold seconds of speech
before the server has to wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from xiaozhi_trio.testing.device import Link


class Downlink:
    """Flows, until it is told to stall."""

    def __init__(self) -> None:
        self._flowing = trio.Event()
        self._flowing.set()

    def stall(self) -> None:
        """Nothing comes any more until it flows."""
        if self._flowing.is_set():
            self._flowing = trio.Event()

    def flow(self) -> None:
        """What waited comes at once."""
        self._flowing.set()

    def over(self, link: Link) -> Link:
        """The link, as it is behind this network."""
        return _Behind(self, link)

    async def passable(self) -> None:
        """Return once it flows."""
        while not self._flowing.is_set():
            await self._flowing.wait()


class _Behind:
    """A link whose messages come when the network lets them."""

    def __init__(self, network: Downlink, link: Link) -> None:
        self._network = network
        self._link = link

    async def send(self, payload: str | bytes) -> None:
        """Send at once: the way to the server is another."""
        await self._link.send(payload)

    async def receive(self) -> str | bytes:
        """The next message, not before the network flows."""
        await self._network.passable()
        payload = await self._link.receive()
        await self._network.passable()
        return payload
