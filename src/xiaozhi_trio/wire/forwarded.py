"""Where a request came from, by the headers that reverse proxies add.

`X-Forwarded-For` is a list to which every proxy appends the address it was reached
from, so only the end of it can be believed: as far as each word is that of a trusted
machine. `Forwarded` (RFC 7239) is the same with more syntax. It is read only where
there is no `X-Forwarded-For`: nginx and others pass a client's own `Forwarded` on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks, read_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.wire.request_head import RequestHead

# Possessive throughout: a quote that is never closed costs no second look.
_QUOTED: Final = r'"(?:[^"\\]++|\\.)*+"?+'
_ELEMENT: Final = re.compile(rf'(?:[^,"]++|{_QUOTED})++', re.DOTALL)
_PAIR: Final = re.compile(rf'\s*+([A-Za-z]++)=((?:[^;"]++|{_QUOTED})*+)', re.DOTALL)
_SECURE: Final = {"https": True, "wss": True, "http": False, "ws": False}


def client_of(head: RequestHead, peer: Endpoint, trusted: TrustedNetworks) -> Endpoint:
    """The client that a request came from, as far as trusted machines vouch for it.

    `peer` is who sent the head: itself the client unless it is trusted. Where a trusted
    machine does not tell, or tells no address, that machine stands for its clients.
    """
    client = peer
    for hop in reversed(_hops(head)):
        if client not in trusted or hop is None:
            break
        client = hop
    return client


def said_secure(head: RequestHead) -> bool | None:
    """Whether the client used TLS towards the proxy; None where the head does not say.

    To be asked only of a head that a trusted machine sent.
    """
    said = _values(head, b"x-forwarded-proto")
    scheme = said.partition(",")[0] if said else next(_parameters(head, "proto"), "") or ""
    return _SECURE.get(scheme.strip().lower())


def _hops(head: RequestHead) -> list[Endpoint | None]:
    listed = _values(head, b"x-forwarded-for")
    words = listed.split(",") if listed else list(_parameters(head, "for"))
    return [None if word is None else read_endpoint(word.strip()) for word in words]


def _values(head: RequestHead, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for field, value in head.headers if field == name)


def _parameters(head: RequestHead, wanted: str) -> Iterator[str | None]:
    """One value of each element of `Forwarded`; None of an element that lacks it."""
    for element in _ELEMENT.findall(_values(head, b"forwarded")):
        pairs = {name.lower(): value.strip() for name, value in _PAIR.findall(element)}
        value = pairs.get(wanted)
        yield None if value is None else value.strip('"')
