"""Cross-origin access for browser test pages, on every answer, errors included.

Browser pages for xiaozhi are served from anywhere, also from a local file, and ask
with `Device-Id`, `Client-Id` and `Authorization` headers: the browser asks for
permission first (a preflight), and hides every answer that does not allow its origin.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALLOWED_HEADERS = ("content-type", "device-id", "client-id", "authorization", "accept-language")
_METHODS = "GET, POST, OPTIONS"
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_MAX_REQUESTED = 32
_MAX_AGE_SECONDS = "600"


class CorsMiddleware:
    """Answers preflights of any path and marks every other answer as readable by any origin.

    No cookies are used on this port, so credentials are not allowed. A page on the
    internet may ask a server in a private network (Private Network Access).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or answer OPTIONS in its place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        if scope["method"] == "OPTIONS":
            response = Response(status_code=204, headers={"Allow": _METHODS})
            _allow(response.headers, asked)
            response.headers["Access-Control-Max-Age"] = _MAX_AGE_SECONDS
            response.headers["Vary"] = "Access-Control-Request-Headers"
            await response(scope, receive, send)
            return

        async def send_allowing(message: Message) -> None:
            if message["type"] == "http.response.start":
                _allow(MutableHeaders(scope=message), asked)
            await send(message)

        await self._app(scope, receive, send_allowing)


def _allow(headers: MutableHeaders, asked: Headers) -> None:
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Allow-Methods"] = _METHODS
    headers["Access-Control-Allow-Headers"] = ", ".join(_allowed_headers(asked))
    if asked.get("access-control-request-private-network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"


def _allowed_headers(asked: Headers) -> list[str]:
    """The headers of every client known, and those this browser asks for, in one spelling."""
    requested = asked.get("access-control-request-headers", "").lower().split(",")
    names = [name.strip() for name in requested[:_MAX_REQUESTED]]
    valid = [name for name in names if _HEADER_NAME.fullmatch(name)]
    return list(dict.fromkeys([*_ALLOWED_HEADERS, *valid]))
