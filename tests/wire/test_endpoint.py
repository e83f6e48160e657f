from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks, read_endpoint


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_what_proxies_write(text: str, shown: str) -> None:
    assert str(read_endpoint(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "1.2.3", "1.2.3.256", "1.2.3.4:", "1.2.3.4:x", "[::1", "::1]",
     "01.2.3.4", "fe80::1%eth0", "1.2.3.4:123456", "1.2.3.4\n", "localhost", "١.2.3.4"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    assert read_endpoint(text) is None


def test_a_home_is_an_ipv4_address_or_a_64_of_ipv6() -> None:
    assert Endpoint.of("192.0.2.1", 5).home == "192.0.2.1"
    assert Endpoint.of("2001:db8:0:1::5").home == Endpoint.of("2001:db8:0:1:ffff::").home
    assert Endpoint.of("2001:db8:0:1::5").home != Endpoint.of("2001:db8:0:2::5").home
    assert Endpoint.of("fe80::1%eth0").home == "fe80::/64"


def test_trust() -> None:
    trusted = TrustedNetworks(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
    for inside in ("10.1.2.3", "192.0.2.1", "fd00::1", "::ffff:10.0.0.1"):
        assert Endpoint.of(inside) in trusted
    for outside in ("11.0.0.0", "192.0.2.2", "2001:db8::1"):
        assert Endpoint.of(outside) not in trusted
    assert None not in trusted
    assert Endpoint.of("127.0.0.1") not in TrustedNetworks()


@given(st.text() | st.ip_addresses().map(str) | st.from_regex(r"\[?[0-9a-f:.]*\]?(:[0-9]*)?"))
def test_any_text_is_an_endpoint_or_none(text: str) -> None:
    endpoint = read_endpoint(text)
    assert endpoint is None or read_endpoint(str(endpoint)) == endpoint
