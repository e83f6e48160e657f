"""Answers in plain HTTP: what the WebSocket port says to a browser, a probe or a refused device."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import orjson

from xiaozhi_trio.wire.answer import Answer
from xiaozhi_trio.wire.upgrade import same_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xiaozhi_trio.config.settings import ServerSettings
    from xiaozhi_trio.wire.refusal import HandshakeRefused
    from xiaozhi_trio.wire.request_head import RequestHead

_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_READING: Final = "GET, HEAD, OPTIONS"


def message_of(refusal: HandshakeRefused) -> str:
    """The refusal in both languages, as the peer is told it."""
    prefix = "认证失败：" if refusal.error == "unauthorized" else ""
    return f"{prefix}{refusal.message}"


def refusal_answer(refusal: HandshakeRefused) -> Answer:
    """The refusal of an upgrade, for a peer that can read it."""
    body = {"error": refusal.error, "reason": refusal.reason, "message": message_of(refusal)}
    return Answer(
        status=refusal.status,
        body=orjson.dumps(body),
        content_type="application/json",
        headers=refusal.headers,
    )


def plain_answer(
    head: RequestHead,
    *,
    server: ServerSettings,
    secure: bool,
    health: Callable[[], Mapping[str, Any]],
) -> Answer:
    """The answer to a request that is no upgrade. `secure` tells a port with TLS."""
    if head.method == "OPTIONS":
        return Answer(status=HTTPStatus.NO_CONTENT, headers=(("Allow", _READING),))
    url = _websocket_url(head, server, secure=secure)
    if head.method not in {"GET", "HEAD"}:
        return _text(HTTPStatus.METHOD_NOT_ALLOWED, url, server, (("Allow", _READING),))
    if same_path(head.path, "/health"):
        return Answer(
            status=HTTPStatus.OK,
            body=orjson.dumps(dict(health())),
            content_type="application/json",
            headers=(("Cache-Control", "no-store"),),
        )
    found = same_path(head.path, "/") or same_path(head.path, server.websocket_path)
    return _text(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND, url, server)


def _text(
    status: HTTPStatus,
    url: str,
    server: ServerSettings,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    trouble = {
        HTTPStatus.METHOD_NOT_ALLOWED: "This port takes no such request; OTA is on the HTTP port "
        f"({server.http_port}).\n",
        HTTPStatus.NOT_FOUND: "There is nothing at this path; OTA is on the HTTP port "
        f"({server.http_port}).\n",
    }.get(status, "")
    text = (
        "Server is running\n"
        f"{trouble}\n"
        f"This is the WebSocket of a xiaozhi voice server. Devices connect to\n"
        f"    {url}\n"
        "with the headers Device-Id and Client-Id; a page in a browser connects to\n"
        f"    {url}?device-id=MAC&client-id=UUID\n"
        "and adds &authorization=Bearer%20TOKEN where the server asks for a token.\n"
    )
    return Answer(status=status, body=text.encode(), headers=headers)


def _websocket_url(head: RequestHead, server: ServerSettings, *, secure: bool) -> str:
    if server.websocket_url:
        return server.websocket_url
    host = head.first(b"host") or b""
    authority = (
        host.decode("ascii")
        if _AUTHORITY.fullmatch(host)
        else f"ADDRESS-OF-THIS-SERVER:{server.websocket_port}"
    )
    return f"{'wss' if secure else 'ws'}://{authority}{server.websocket_path}"
