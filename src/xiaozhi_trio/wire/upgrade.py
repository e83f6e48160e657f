"""Whether a request is a WebSocket upgrade that can be served (RFC 6455, 4.2.1)."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from xiaozhi_trio.wire.request_head import RequestHead

_KEY_BYTES: Final = 16


def wants_upgrade(head: RequestHead) -> bool:
    """Whether the peer means a WebSocket.

    True too where only the key is left of it, as behind a proxy that drops the
    hop-by-hop headers `Connection` and `Upgrade`.
    """
    return _has_upgrade_headers(head) or head.first(b"sec-websocket-key") is not None


def _has_upgrade_headers(head: RequestHead) -> bool:
    return b"upgrade" in head.tokens(b"connection") and b"websocket" in head.tokens(b"upgrade")


def same_path(left: str, right: str) -> bool:
    """Whether two paths differ at most in a slash at the end."""
    return left.rstrip("/") == right.rstrip("/")


def check_upgrade(head: RequestHead, path: str) -> bytes:
    """The `Sec-WebSocket-Key` of an upgrade to `path`.

    Raises `HandshakeRefused` with the reason `wrong_method`, `wrong_path`,
    `upgrade_headers_missing`, `websocket_version` or `websocket_key_malformed`.
    """
    if head.method != "GET":
        raise HandshakeRefused(
            reason="wrong_method",
            status=405,
            error="method_not_allowed",
            message_zh="WebSocket 握手必须使用 GET",
            message_en="a WebSocket handshake is a GET request",
            fix="use GET",
            headers=(("Allow", "GET"),),
        )
    if not same_path(head.path, path):
        raise HandshakeRefused(
            reason="wrong_path",
            status=404,
            error="not_found",
            message_zh=f"地址不正确，WebSocket 的路径是 {path}",
            message_en=f"there is no WebSocket at this path; it is at {path}",
            fix=f"connect to {path}, or set [server] websocket_path",
        )
    if not _has_upgrade_headers(head):
        raise HandshakeRefused(
            reason="upgrade_headers_missing",
            status=400,
            error="bad_request",
            message_zh="缺少 Connection: Upgrade 和 Upgrade: websocket，可能被反向代理去掉了",
            message_en="Sec-WebSocket-Key came without Connection: Upgrade and Upgrade: websocket",
            fix="let the reverse proxy pass Upgrade and Connection on over HTTP/1.1",
        )
    if head.first(b"sec-websocket-version") != b"13":
        raise HandshakeRefused(
            reason="websocket_version",
            status=426,
            error="upgrade_required",
            message_zh="只支持 WebSocket 版本 13",
            message_en="the header Sec-WebSocket-Version is not 13",
            fix="use a client that speaks RFC 6455 (version 13)",
            headers=(("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        )
    key = head.first(b"sec-websocket-key") or b""
    if not _is_key(key):
        raise HandshakeRefused(
            reason="websocket_key_malformed",
            status=400,
            error="bad_request",
            message_zh="Sec-WebSocket-Key 应为 16 字节的 Base64",
            message_en="the header Sec-WebSocket-Key is not the Base64 of 16 bytes",
            fix="send 16 random bytes in Base64, as RFC 6455 asks",
        )
    return key


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def clean_head(key: bytes) -> bytes:
    """A request head with no more than an upgrade needs.

    wsproto 1.3.2 decodes `Host`, `Connection` and the `Sec-WebSocket-…` values as
    ASCII or IDNA and dies of other bytes; a head of ours cannot hurt it. No
    extension is offered, so that none is negotiated: firmware has none.
    """
    return (
        b"GET / HTTP/1.1\r\n"
        b"Host: localhost\r\n"
        b"Connection: Upgrade\r\n"
        b"Upgrade: websocket\r\n"
        b"Sec-WebSocket-Key: " + key + b"\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )
