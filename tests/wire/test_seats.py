from __future__ import annotations

import pytest

from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.seats import Seats

PEER = Endpoint.of("192.0.2.1", 1)


def seats(limit: int = 2) -> Seats:
    return Seats(limit, TrustedNetworks(["10.0.0.0/8"]))


def test_an_address_has_so_many_places_and_gets_them_back() -> None:
    house = seats()
    with house.one() as first, house.one() as second:
        first.take(PEER)
        second.take(Endpoint.of("192.0.2.1", 2))
        assert house.are_taken(PEER)
        with house.one() as third, pytest.raises(HandshakeRefused) as caught:
            third.take(PEER)
        assert caught.value.reason == "too_many_connections_per_address"
        assert "all 2 connections" in caught.value.message_en
        assert "2" in caught.value.message_zh
        with house.one() as other:
            other.take(Endpoint.of("192.0.2.2", 1))
    assert not house.are_taken(PEER)
    assert not house._taken


def test_a_seat_is_taken_once() -> None:
    house = seats(1)
    with house.one() as seat:
        seat.take(PEER)
        seat.take(PEER)
        seat.take(Endpoint.of("192.0.2.2", 1))
        assert house._taken == {"192.0.2.1": 1}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "10.1.1.1"])
def test_loopback_and_proxies_are_not_counted(address: str) -> None:
    house = seats(1)
    with house.one() as seat:
        seat.take(Endpoint.of(address))
        assert seat.home is None
        assert not house.are_taken(Endpoint.of(address))
        # A proxy tells of its client later.
        seat.take(PEER)
        assert house.are_taken(PEER)


def test_a_peer_that_has_gone_is_not_counted() -> None:
    house = seats(1)
    with house.one() as seat:
        seat.take(None)
        assert not house.are_taken(None)


def test_a_64_of_ipv6_counts_as_one() -> None:
    house = seats(1)
    with house.one() as seat:
        seat.take(Endpoint.of("2001:db8::1"))
        assert house.are_taken(Endpoint.of("2001:db8::ffff:1"))
        assert not house.are_taken(Endpoint.of("2001:db8:0:1::1"))
