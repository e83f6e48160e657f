"""Who may read what the server tells of its devices: this machine, or who has the token."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.http.errors import RequestRefused
from xiaozhi_trio.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from starlette.requests import Request

_FORBIDDEN: Final = 403
_SCHEME: Final = "bearer "
_HERE: Final = ("127.0.0.1", "localhost", "[::1]")
_SIGNS_OF_OTHERS: Final = ("origin", "forwarded", "x-forwarded-for", "x-real-ip", "via")
"""A browser's page, which any answer on this port lets read it, or a reverse proxy, for
which its clients seem to be on this machine."""


def require_reader(request: Request, token: str) -> None:
    """Raises `RequestRefused` unless the request brings the token, or comes from this machine.

    Where there is a token, it is asked of this machine as well. A name in `Host` that
    is not this machine's is a page's that had its name point here (DNS rebinding).
    """
    if token:
        brought = request.headers.get("authorization", "")
        if not brought.lower().startswith(_SCHEME):
            raise RequestRefused(
                _FORBIDDEN,
                "read_token_missing",
                "No token came; send the header Authorization: Bearer with the read_token of "
                "[telemetry]. "
                "请求缺少令牌，请在 Authorization 头中提供 [telemetry] 的 read_token。",
            )
        if not hmac.compare_digest(brought[len(_SCHEME) :].strip().encode(), token.encode()):
            raise RequestRefused(
                _FORBIDDEN,
                "read_token_wrong",
                "The token is not the read_token of [telemetry]. "
                "令牌与 [telemetry] 的 read_token 不一致。",
            )
    elif not _is_from_here(request):
        raise RequestRefused(
            _FORBIDDEN,
            "reader_not_local",
            "Without a read_token in [telemetry], programs on the server's machine alone read "
            "this, at http://127.0.0.1. "
            "未设置 [telemetry] 的 read_token 时，仅服务器本机的程序可以读取。",
        )


def _is_from_here(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _SIGNS_OF_OTHERS):
        return False
    host = request.headers.get("host", "").lower()
    return Endpoint.of(request.client.host).address.is_loopback and (
        host.rpartition(":")[0] in _HERE or host in _HERE
    )
