"""How many connections one address holds, and what is told where there is no room."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks


class Seats:
    """The places of every address.

    Trusted proxies stand for many clients, and so does loopback, where a proxy that
    nobody has configured as trusted may run; both may hold any number.
    """

    def __init__(self, limit: int, trusted: TrustedNetworks) -> None:
        self._limit = limit
        self._trusted = trusted
        self._taken: Counter[str] = Counter()

    def home_of(self, peer: Endpoint | None) -> str | None:
        """What the peer's connections are counted by; None where they are not."""
        if peer is None or peer.address.is_loopback or peer in self._trusted:
            return None
        return peer.home

    def are_taken(self, peer: Endpoint | None) -> bool:
        """Whether there is no room for one more of this peer."""
        home = self.home_of(peer)
        return home is not None and self._taken[home] >= self._limit

    @contextmanager
    def one(self) -> Iterator[Seat]:
        """A seat of nobody yet, for one connection; given back at the end of the block."""
        seat = Seat(self)
        try:
            yield seat
        finally:
            if seat.home is not None:
                self._leave(seat.home)

    def take(self, peer: Endpoint | None) -> str | None:
        """Count one more connection of this peer. Raises `HandshakeRefused`."""
        if self.are_taken(peer):
            raise self.refusal()
        home = self.home_of(peer)
        if home is not None:
            self._taken[home] += 1
        return home

    def _leave(self, home: str) -> None:
        self._taken[home] -= 1
        if not self._taken[home]:
            del self._taken[home]

    def refusal(self) -> HandshakeRefused:
        """What a peer is told for whom there is no room."""
        return HandshakeRefused(
            reason="too_many_connections_per_address",
            status=429,
            error="too_many_requests",
            message_zh=f"同一地址的连接数已达上限 {self._limit}，请稍后再试",
            message_en=f"all {self._limit} connections that one address may have are in use",
            fix="look for a client that opens connections without end, or raise [limits] "
            "connections_per_address; behind a proxy set [server] trusted_proxies",
            headers=(("Retry-After", "5"),),
        )


class Seat:
    """The place of one connection."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self.home: str | None = None

    def take(self, peer: Endpoint | None) -> None:
        """Sit down as this peer, unless it is somebody already. Raises `HandshakeRefused`."""
        if self.home is None:
            self.home = self._seats.take(peer)


def too_many_connections(limit: int) -> HandshakeRefused:
    """The refusal of everybody while all `limit` connections of a port are in use."""
    return HandshakeRefused(
        reason="too_many_connections",
        status=503,
        error="service_unavailable",
        message_zh=f"连接数已达上限 {limit}，请稍后再试",
        message_en=f"all {limit} connections are in use",
        fix="raise [limits] connections, or run another server",
        headers=(("Retry-After", "5"),),
    )
