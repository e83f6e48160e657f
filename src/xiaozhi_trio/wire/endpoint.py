"""An address on the network, as a socket, a PROXY header or a proxy's HTTP header tells it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network

Address: TypeAlias = IPv4Address | IPv6Address

_HOME_PREFIX: Final = 64
"""Bits of an IPv6 address that one customer of a network has, who may use all the others."""
_WITH_PORT: Final = re.compile(
    r"(?:(?P<v4>[0-9.]{7,15})|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_BARE_V6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}", re.ASCII)


@attrs.frozen
class Endpoint:
    """The end of a connection."""

    address: Address
    port: int | None = None
    """None where only the address was told."""

    @classmethod
    def of(cls, address: str | bytes, port: int | None = None) -> Endpoint:
        """From text or from 4 or 16 bytes; IPv4 within IPv6 becomes plain. Raises ValueError."""
        parsed = ip_address(address)
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return cls(parsed, port)

    @property
    def home(self) -> str:
        """What is counted as one: an IPv4 address, or a /64 of IPv6."""
        if isinstance(self.address, IPv4Address):
            return str(self.address)
        return str(IPv6Network((int(self.address), _HOME_PREFIX), strict=False))

    def __str__(self) -> str:
        if self.port is None:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


def read_endpoint(text: str) -> Endpoint | None:
    """What a peer wrote: an address, IPv6 in brackets where a port follows; None for all else."""
    match = _WITH_PORT.fullmatch(text)
    try:
        if match is not None:
            port = None if match["port"] is None else int(match["port"])
            return Endpoint.of(match["v4"] or match["v6"], port)
        return Endpoint.of(text) if _BARE_V6.fullmatch(text) else None
    except ValueError:
        return None


class TrustedNetworks:
    """The machines whose word on where a connection came from counts."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Addresses and networks such as `10.0.0.0/8`. Raises ValueError for others."""
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(map(ip_network, networks))

    def __contains__(self, endpoint: Endpoint | None) -> bool:
        return endpoint is not None and any(
            endpoint.address in network for network in self._networks
        )
