from __future__ import annotations

import socket
from types import SimpleNamespace

import ifaddr
import pytest
from starlette.requests import Request

from xiaozhi_trio.config.settings import ServerSettings
from xiaozhi_trio.http import advertise
from xiaozhi_trio.http.advertise import Approach, http_url, lan_addresses, websocket_url

LAN = "192.168.7.20"


@pytest.mark.parametrize(
    ("host_header", "local_address", "forwarded", "expected"),
    [
        # What the device used is what it can reach.
        ("192.168.1.5:8003", "192.168.1.5", False, "192.168.1.5"),
        ("192.168.1.5", "192.168.1.5", False, "192.168.1.5"),
        ("xiaozhi.example.org", "172.17.0.2", False, "xiaozhi.example.org"),
        ("Voice_Server.local:8003", "192.168.1.5", False, "Voice_Server.local"),
        ("xiaozhi.example.org", "172.17.0.2", True, "xiaozhi.example.org"),
        (" 192.168.1.5:8003 ", None, False, "192.168.1.5"),
        # Loopback is right on this machine, wrong behind a proxy.
        ("127.0.0.1:8003", "127.0.0.1", False, "127.0.0.1"),
        ("localhost:8003", "127.0.0.1", False, "localhost"),
        ("127.0.0.1:8003", "127.0.0.1", True, LAN),
        ("localhost", "127.0.0.1", True, LAN),
        ("xiaozhi.localhost.", "127.0.0.1", True, LAN),
        ("localhost", "192.168.1.5", True, "192.168.1.5"),
        # 0.0.0.0 is no address.
        ("0.0.0.0:8003", "127.0.0.1", False, LAN),
        ("[::]:8003", "::1", False, LAN),
        # IPv6 literals break the firmware's URL parser.
        ("[fd00::2]:8003", "fd00::2", False, LAN),
        ("[::1]:8003", "::1", False, LAN),
        ("[fd00::2]:8003", "::ffff:192.168.1.5", False, "192.168.1.5"),
        # A missing or unusable Host header.
        (None, "192.168.1.5", False, "192.168.1.5"),
        ("", "192.168.1.5", False, "192.168.1.5"),
        (None, None, False, LAN),
        (None, "0.0.0.0", False, LAN),
        ("evil.example/path", "192.168.1.5", False, "192.168.1.5"),
        ("user@evil.example", "192.168.1.5", False, "192.168.1.5"),
        ("a b", "192.168.1.5", False, "192.168.1.5"),
        ("a:b:c", "192.168.1.5", False, "192.168.1.5"),
        ("a\r\nX: y", "192.168.1.5", False, "192.168.1.5"),
        ("设备.example", "192.168.1.5", False, "192.168.1.5"),
        ("192.168.1.555", "192.168.1.5", False, "192.168.1.5"),
        ("1.2.3", "192.168.1.5", False, "192.168.1.5"),
        ("x" * 64, "192.168.1.5", False, "192.168.1.5"),
        (".".join(["abcdefgh"] * 30), "192.168.1.5", False, "192.168.1.5"),
        ("a..b", "192.168.1.5", False, "192.168.1.5"),
    ],
)
def test_a_device_is_given_an_address_it_can_reach(
    host_header: str | None, local_address: str | None, forwarded: bool, expected: str
) -> None:
    approach = Approach(
        host_header=host_header, local_address=local_address, local_port=8003, forwarded=forwarded
    )
    url = websocket_url(ServerSettings(), port=8000, approach=approach, lan=lambda: [LAN])
    assert url == f"ws://{expected}:8000/xiaozhi/v1/"


def test_without_any_address_loopback_is_left() -> None:
    url = websocket_url(ServerSettings(), port=8000, approach=Approach(), lan=list)
    assert url == "ws://127.0.0.1:8000/xiaozhi/v1/"


def test_the_configured_address_is_handed_out_as_it_is() -> None:
    server = ServerSettings(websocket_url="wss://voice.example.org/xiaozhi/v1/")
    approach = Approach(host_header="192.168.1.5")
    assert websocket_url(server, port=8000, approach=approach) == server.websocket_url


def test_tls_on_the_gateway_shows_in_the_scheme() -> None:
    server = ServerSettings(tls_certificate="chain.pem", tls_key="key.pem")
    url = websocket_url(server, port=443, approach=Approach(host_header="voice.example.org"))
    assert url == "wss://voice.example.org:443/xiaozhi/v1/"


def test_a_path_without_a_slash_gets_one() -> None:
    server = ServerSettings(websocket_path="voice")
    url = websocket_url(server, port=8000, approach=Approach(host_header="10.0.0.2"))
    assert url == "ws://10.0.0.2:8000/voice"


@pytest.mark.parametrize(
    ("host_header", "expected"),
    [
        ("10.0.0.2:9003", "http://10.0.0.2:9003"),
        ("10.0.0.2", "http://10.0.0.2:8003"),
        ("10.0.0.2:0", "http://10.0.0.2:8003"),
        ("10.0.0.2:99999", "http://10.0.0.2:8003"),
        ("voice.example.org:9003", "http://voice.example.org:9003"),
        ("voice.example.org:99999", "http://voice.example.org:8003"),
        ("bad/host:9003", "http://10.9.9.9:8003"),
    ],
)
def test_the_http_address_keeps_the_port_the_peer_used(host_header: str, expected: str) -> None:
    approach = Approach(host_header=host_header, local_address="10.9.9.9", local_port=8003)
    assert http_url(ServerSettings(), approach=approach) == expected


def test_the_configured_http_address_wins() -> None:
    server = ServerSettings(http_url="https://voice.example.org/")
    assert http_url(server, approach=Approach()) == "https://voice.example.org"


@pytest.mark.parametrize(
    ("headers", "forwarded"),
    [
        ([], False),
        ([(b"x-forwarded-for", b"10.0.0.9")], True),
        ([(b"x-forwarded-proto", b"https")], True),
        ([(b"forwarded", b"for=10.0.0.9")], True),
    ],
)
def test_the_approach_is_read_from_a_request(
    headers: list[tuple[bytes, bytes]], forwarded: bool
) -> None:
    request = Request(
        {
            "type": "http",
            "server": ("192.168.1.5", 8003),
            "headers": [(b"host", b"voice.example.org"), *headers],
        }
    )
    assert Approach.of(request) == Approach(
        host_header="voice.example.org",
        local_address="192.168.1.5",
        local_port=8003,
        forwarded=forwarded,
    )


def test_an_approach_may_know_nothing() -> None:
    assert Approach.of(Request({"type": "http", "headers": []})) == Approach()


def adapter(name: str, *addresses: object) -> SimpleNamespace:
    return SimpleNamespace(
        nice_name=name, ips=[SimpleNamespace(ip=address) for address in addresses]
    )


def test_lan_addresses_leave_out_what_no_device_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [
        adapter("lo", "127.0.0.1", ("::1", 0, 0)),
        adapter("docker0", "172.17.0.1"),
        adapter("br-0123456789ab", "172.18.0.1"),
        adapter("wlan0", "192.168.1.5", ("fe80::1", 0, 2), "169.254.3.4"),
        adapter("br-lan", "10.0.0.1"),
        adapter("eth0", "192.168.2.5", "192.168.1.5"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    monkeypatch.setattr(advertise, "_address_of_default_route", lambda: "192.168.2.5")
    assert lan_addresses() == ["192.168.2.5", "192.168.1.5", "10.0.0.1"]
    monkeypatch.setattr(advertise, "_address_of_default_route", lambda: None)
    assert lan_addresses() == ["192.168.1.5", "10.0.0.1", "192.168.2.5"]


class RouteProbe:
    """A UDP socket of a machine with or without a default route."""

    def __init__(self, route: str | None) -> None:
        self.route = route
        self.sent: list[object] = []

    def __enter__(self) -> RouteProbe:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def connect(self, address: object) -> None:
        if self.route is None:
            raise OSError(101, "Network is unreachable")

    def getsockname(self) -> tuple[str, int]:
        assert self.route is not None
        return self.route, 40_000


@pytest.mark.parametrize("route", [None, "192.168.1.5"])
def test_the_default_route_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, route: str | None
) -> None:
    monkeypatch.setattr(socket, "socket", lambda family, kind: RouteProbe(route))
    assert advertise._address_of_default_route() == route


@pytest.mark.sockets
def test_this_machine_tells_its_addresses() -> None:
    for address in lan_addresses():
        socket.inet_aton(address)
