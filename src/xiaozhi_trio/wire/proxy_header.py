"""The PROXY protocol: what a TCP load balancer says of the client ahead of the client's bytes.

Versions 1 and 2 of the specification by HAProxy ("The PROXY protocol", 2020/03/05).
Extensions behind the addresses of version 2 are skipped; its checksum is not checked,
because what stands here is believed for the sake of who sent it.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from xiaozhi_trio.wire.endpoint import Endpoint

MAX_BYTES: Final = 2048
"""Longest header taken, extensions included; load balancers of clouds send about 200 bytes."""

_V1: Final = b"PROXY "
_V1_MAX_BYTES: Final = 107
_V1_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|TCP[46] (?P<source>[0-9A-Fa-f.:]+) [0-9A-Fa-f.:]+ (?P<port>[0-9]{1,5}) [0-9]{1,5})"
)
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES: Final = 16
_V2_LOCAL: Final = 0x20
_V2_PROXY: Final = 0x21
_V2_ADDRESS_BYTES: Final = {1: 4, 2: 16}
"""By address family: IPv4 and IPv6; of others the address means nothing to us."""


class ProxyHeaderMalformed(Exception):
    """What began like a PROXY header is none that can be read."""


@attrs.frozen
class ProxyHeader:
    """One PROXY header."""

    source: Endpoint | None
    """The client; None where the proxy speaks for itself, or does not tell."""
    size: int
    """Bytes of the header; the client's own follow."""


def may_begin(received: bytes) -> bool:
    """Whether these first bytes are, or may become, those of a PROXY header."""
    return any(received.startswith(signature[: len(received)]) for signature in (_V1, _V2))


def parse_proxy_header(received: bytes) -> ProxyHeader | None:
    """The header at the beginning of bytes that `may_begin` one; None while more must come.

    Raises `ProxyHeaderMalformed`, at the latest after `MAX_BYTES`.
    """
    if received.startswith(_V1):
        return _version_1(received)
    if received.startswith(_V2):
        return _version_2(received)
    if may_begin(received):
        return None
    raise ProxyHeaderMalformed("neither PROXY nor the signature of version 2 at the beginning")


def _version_1(received: bytes) -> ProxyHeader | None:
    line, end, _ = received[:_V1_MAX_BYTES].partition(b"\r\n")
    if not end:
        if len(received) < _V1_MAX_BYTES:
            return None
        raise ProxyHeaderMalformed(f"no end of line within {_V1_MAX_BYTES} bytes")
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderMalformed(
            "the line is not PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT, nor PROXY UNKNOWN"
        )
    size = len(line) + len(end)
    if match["source"] is None:
        return ProxyHeader(None, size)
    return ProxyHeader(_endpoint(match["source"].decode(), int(match["port"])), size)


def _version_2(received: bytes) -> ProxyHeader | None:
    if len(received) < _V2_FIXED_BYTES:
        return None
    command, family = received[12], received[13] >> 4
    size = _V2_FIXED_BYTES + int.from_bytes(received[14:16])
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyHeaderMalformed(f"version and command are 0x{command:02x}, not 0x20 or 0x21")
    if size > MAX_BYTES:
        raise ProxyHeaderMalformed(f"the header has {size} bytes, at most {MAX_BYTES} are taken")
    length = _V2_ADDRESS_BYTES.get(family)
    if command == _V2_PROXY and length is not None and size < _V2_FIXED_BYTES + 2 * length + 4:
        raise ProxyHeaderMalformed("the header is too short for the addresses it announces")
    if len(received) < size:
        return None
    if command == _V2_LOCAL or length is None:
        return ProxyHeader(None, size)
    first_port = _V2_FIXED_BYTES + 2 * length
    return ProxyHeader(
        Endpoint.of(
            received[_V2_FIXED_BYTES : _V2_FIXED_BYTES + length],
            int.from_bytes(received[first_port : first_port + 2]),
        ),
        size,
    )


def _endpoint(address: str, port: int) -> Endpoint:
    try:
        return Endpoint.of(address, port)
    except ValueError as error:
        raise ProxyHeaderMalformed("the source is no IP address") from error
