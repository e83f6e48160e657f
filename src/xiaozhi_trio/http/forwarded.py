"""Who sent a request, where a trusted reverse proxy passed it on.

Looked at for each request, because a proxy sends those of many clients over one connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.forwarded import client_of, said_secure
from xiaozhi_trio.wire.request_head import RequestHead

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Receive, Scope, Send


class ForwardedMiddleware:
    """Puts the client itself, and whether it used TLS, into the scope of the request."""

    def __init__(self, app: ASGIApp, trusted: TrustedNetworks) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] == "http":
            self._believe(scope)
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        peer = _endpoint(scope.get("client"))
        if peer is None or peer not in self._trusted:
            return
        head = RequestHead(scope["method"], scope["raw_path"], tuple(scope["headers"]))
        client = client_of(head, peer, self._trusted)
        # In place, so that the server's own line about the request names the client too.
        scope["client"] = (str(client.address), client.port or 0)
        if said_secure(head):
            scope["scheme"] = "https"


def peer_of(connection: HTTPConnection) -> Endpoint | None:
    """The client of a request; None where it is not known."""
    return _endpoint(connection.scope.get("client"))


def _endpoint(client: tuple[str, int] | None) -> Endpoint | None:
    return None if client is None else Endpoint.of(client[0], client[1] or None)
