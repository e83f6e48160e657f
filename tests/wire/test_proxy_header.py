from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.endpoint import Endpoint
from xiaozhi_trio.wire.proxy_header import (
    MAX_BYTES,
    ProxyHeader,
    ProxyHeaderMalformed,
    may_begin,
    parse_proxy_header,
)

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2) + body


V4_BODY = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + (56324).to_bytes(2) + (8000).to_bytes(2)
V6_SOURCE = ipaddress.ip_address("2001:db8::1").packed
V6_BODY = V6_SOURCE + bytes(16) + (9).to_bytes(2) + bytes(2)
CLIENT = Endpoint.of("192.0.2.1", 56324)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 8000\r\n", CLIENT),
        (b"PROXY TCP6 2001:db8::1 ::1 9 8000\r\n", Endpoint.of("2001:db8::1", 9)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (version_2(0x21, 0x11, V4_BODY), CLIENT),
        (version_2(0x21, 0x11, V4_BODY + b"\x03\x00\x04\x01\x02\x03\x04"), CLIENT),
        (version_2(0x21, 0x21, V6_BODY), Endpoint.of("2001:db8::1", 9)),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x20, 0x11, V4_BODY), None),
        (version_2(0x21, 0x31, bytes(216)), None),
    ],
)
def test_headers_in_pieces_of_any_size(header: bytes, source: Endpoint | None) -> None:
    for length in range(len(header)):
        assert may_begin(header[:length])
        assert parse_proxy_header(header[:length]) is None
    expected = ProxyHeader(source, len(header))
    assert parse_proxy_header(header) == expected
    assert parse_proxy_header(header + b"GET / HTTP/1.1\r\n") == expected


@pytest.mark.parametrize(
    ("received", "says"),
    [
        (b"GET / HTTP/1.1", "neither"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5\r\n", "the line is not"),
        (b"PROXY TCP4 host 192.0.2.2 5 6\r\n", "the line is not"),
        (b"PROXY TCP4 999.0.2.1 192.0.2.2 5 6\r\n", "no IP address"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\n\r\n", "the line is not"),
        (b"PROXY " + b"x" * 120, "no end of line"),
        (b"PROXY UNKNOWN " + b"x" * 120 + b"\r\n", "no end of line"),
        (SIGNATURE + b"\x31\x11\x00\x0c", "0x31"),
        (SIGNATURE + b"\x22\x11\x00\x0c", "0x22"),
        (SIGNATURE + b"\x21\x11\xff\xff", "at most 2048"),
        (version_2(0x21, 0x11, V4_BODY[:-1]), "too short"),
        (version_2(0x21, 0x21, V4_BODY), "too short"),
    ],
)
def test_what_is_no_header(received: bytes, says: str) -> None:
    with pytest.raises(ProxyHeaderMalformed, match=says):
        parse_proxy_header(received)


@pytest.mark.parametrize("received", [b"G", b"PROPFIND", b"\r\n\r\nG", b"\x16\x03", b"PROXY\t"])
def test_what_begins_no_header(received: bytes) -> None:
    assert not may_begin(received)


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
    st.binary(max_size=MAX_BYTES + 100),
)
def test_any_bytes_are_a_header_or_malformed_or_wait_for_more(begin: bytes, rest: bytes) -> None:
    received = begin + rest
    with contextlib.suppress(ProxyHeaderMalformed):
        header = parse_proxy_header(received)
        if header is None:
            assert len(received) < MAX_BYTES
        else:
            assert header.size <= len(received)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_comes_out_as_it_went_in(
    address: IPv4Address | IPv6Address, port: int
) -> None:
    line = f"PROXY TCP{address.version} {address} {address} {port} 8000\r\n".encode()
    body = address.packed * 2 + port.to_bytes(2) + bytes(2)
    expected = Endpoint.of(str(address), port)
    for header in (line, version_2(0x21, 0x11 if address.version == 4 else 0x21, body)):
        assert parse_proxy_header(header) == ProxyHeader(expected, len(header))
