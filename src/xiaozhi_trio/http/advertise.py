"""The addresses this server hands out: what a device or a person is told to connect to.

A device follows the WebSocket address of the OTA answer literally, so a wrong one
is a device that never connects. The firmware's URL parser takes the first colon
after `://` as the port separator and the path from the first slash on: no IPv6
literal works, and the port is always written out here.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING

import attrs
import ifaddr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import HTTPConnection

    from xiaozhi_trio.config.settings import ServerSettings

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
_HOST_HEADER = re.compile(rf"(?P<host>{_LABEL}(?:\.{_LABEL})*\.?)(?::(?P<port>[0-9]{{1,5}}))?")
_MAX_HOST_LENGTH = 253
_UNSPECIFIED_HOST = re.compile(r"(?:0\.0\.0\.0|\[::\])(?::[0-9]*)?")
_VIRTUAL_INTERFACE = re.compile(r"docker.*|veth.*|virbr.*|br-[0-9a-f]{12}")
# Of the block reserved for documentation: a route to it is the default route.
_ANYWHERE = ("198.51.100.1", 9)
_FORWARDING_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


@attrs.frozen(kw_only=True)
class Approach:
    """How a peer reached the HTTP port."""

    host_header: str | None = None
    """As sent; firmware sends no port in it."""
    local_address: str | None = None
    """The server's own end of the connection, without the port."""
    local_port: int | None = None
    forwarded: bool = False
    """A reverse proxy says that it passed the request on."""
    secure: bool = False
    """A trusted one says that the peer used TLS towards it."""

    @classmethod
    def of(cls, connection: HTTPConnection) -> Approach:
        """The approach of a request or a WebSocket handshake."""
        address, port = connection.scope.get("server") or (None, None)
        return cls(
            host_header=connection.headers.get("host"),
            local_address=address,
            local_port=port,
            forwarded=any(name in connection.headers for name in _FORWARDING_HEADERS),
            secure=connection.scope.get("scheme") == "https",
        )


def lan_addresses() -> list[str]:
    """The machine's IPv4 addresses that others may reach, the default route's first.

    Asks the operating system only; no packet is sent. Leaves out loopback and
    link-local addresses and the bridges of containers and virtual machines.
    """
    found = [
        address.ip
        for adapter in ifaddr.get_adapters()
        if not _VIRTUAL_INTERFACE.fullmatch(adapter.nice_name)
        for address in adapter.ips
        if isinstance(address.ip, str)
    ]
    usable = [text for text in dict.fromkeys(found) if _is_lan(ipaddress.IPv4Address(text))]
    preferred = _address_of_default_route()
    return sorted(usable, key=lambda text: text != preferred)


def _is_lan(address: ipaddress.IPv4Address) -> bool:
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _address_of_default_route() -> str | None:
    """None on a machine without a default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a UDP socket picks the route and sends nothing.
            probe.connect(_ANYWHERE)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address


def websocket_url(
    server: ServerSettings,
    *,
    port: int,
    approach: Approach,
    lan: Callable[[], Sequence[str]] = lan_addresses,
) -> str:
    """The WebSocket address for a device that came by `approach`.

    The setting `websocket_url` where it is set, else the address the device used
    itself with the gateway's `port`. `lan` is asked only where that address is of
    no use to the device.
    """
    if server.websocket_url:
        return server.websocket_url
    scheme = "wss" if server.tls_certificate else "ws"
    path = server.websocket_path
    slash = "" if path.startswith("/") else "/"
    return f"{scheme}://{reachable_host(approach, lan)}:{port}{slash}{path}"


def http_url(
    server: ServerSettings,
    *,
    approach: Approach,
    lan: Callable[[], Sequence[str]] = lan_addresses,
) -> str:
    """The address of the HTTP port, without a slash at its end, for a peer that came by `approach`.

    The setting `http_url` where it is set, else the address and port the peer used; of a
    proxy's port for TLS only that which the peer names is known.
    """
    if server.http_url:
        return server.http_url.rstrip("/")
    _, port = _split_host_header(approach.host_header)
    host = reachable_host(approach, lan)
    if approach.secure:
        return f"https://{host}:{port}" if port else f"https://{host}"
    return f"http://{host}:{port or approach.local_port or server.http_port}"


def reachable_host(approach: Approach, lan: Callable[[], Sequence[str]]) -> str:
    """The host name or IPv4 address under which the peer finds this machine.

    A loopback address is right for a peer on this machine only, so it is not handed
    out where a proxy passed the request on, nor for `0.0.0.0`, which is no address.
    """
    named, _ = _split_host_header(approach.host_header)
    unspecified = _UNSPECIFIED_HOST.fullmatch((approach.host_header or "").strip()) is not None
    loopback_helps = not (approach.forwarded or unspecified)
    for host in (named, _ipv4(approach.local_address)):
        if host is not None and (loopback_helps or not _is_loopback(host)):
            return host
    return next(iter(lan()), "127.0.0.1")


def _split_host_header(header: str | None) -> tuple[str | None, int | None]:
    """Host and port of a `Host` header; None for what is missing, unsafe or no use to a client."""
    match = _HOST_HEADER.fullmatch((header or "").strip())
    if match is None or len(match["host"]) > _MAX_HOST_LENGTH:
        return None, None
    port = int(match["port"] or 0)
    host = match["host"]
    if re.fullmatch(r"[0-9.]+", host):
        return _ipv4(host), port if 0 < port < 65_536 else None
    return host, port if 0 < port < 65_536 else None


def _ipv4(text: str | None) -> str | None:
    """The address in dotted form, also of an IPv4-mapped IPv6 one; None where there is none."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return None
        address = address.ipv4_mapped
    return None if address.is_unspecified else str(address)


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
