"""Every error of the HTTP port as JSON with a plain reason, never a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from loguru import logger
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection, Request

    from xiaozhi_trio.telemetry.counters import Counters

_BAD_REQUEST = 400
_NOT_FOUND = 404


class RequestRefused(Exception):
    """A request that cannot be answered as it stands."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """A word of our own such as `device_id_missing`."""
        self.message = message
        """What came, what was expected, what to do; English and Chinese, nothing of the peer's."""


def error_response(status: int, reason: str, message: str) -> JSONResponse:
    """The body every error has."""
    body = {"success": False, "error": reason, "message": message}
    return JSONResponse(body, status, {"Cache-Control": "no-store"})


async def answer_refused(request: Request, failure: Exception) -> Response:
    """Tell the peer, the log and the counters the same reason."""
    refused = cast("RequestRefused", failure)
    _counters(request).count("http_requests_refused", reason=refused.reason)
    logger.bind(reason=refused.reason, peer=_peer(request), path=request.scope["path"]).info(
        "http request refused"
    )
    return error_response(refused.status, refused.reason, refused.message)


async def answer_http_exception(request: Request, failure: Exception) -> Response:
    """Answer for the router: an unknown path or a method the path does not know."""
    unknown = cast("HTTPException", failure)
    logger.bind(
        status=unknown.status_code,
        method=request.method,
        path=request.scope["path"],
        peer=_peer(request),
    ).info("http request not understood")
    if unknown.status_code == _NOT_FOUND:
        return error_response(
            _NOT_FOUND,
            "not_found",
            "Nothing here; devices and test pages use /xiaozhi/ota/. "
            "此地址不存在，OTA 地址是 /xiaozhi/ota/。",
        )
    response = error_response(
        unknown.status_code,
        "method_not_allowed",
        f"{unknown.detail}; this address takes other methods. 此地址不支持该请求方法。",
    )
    response.headers.update(unknown.headers or {})
    return response


async def answer_disconnect(request: Request, _failure: Exception) -> Response:
    """Nobody is there to read an answer; the request just ends."""
    logger.bind(path=request.scope["path"]).debug("http peer left during its request")
    return Response(status_code=_BAD_REQUEST)


async def answer_failure(connection: HTTPConnection, failure: Exception) -> Response:
    """A fault of ours: the whole of it for the log, none of it for the peer."""
    _counters(connection).count("http_request_failures")
    logger.opt(exception=failure).bind(path=connection.scope["path"]).error("http request failed")
    return error_response(
        500,
        "internal_error",
        "The server failed to answer; its log says why. 服务器内部错误，详见服务器日志。",
    )


def _counters(connection: HTTPConnection) -> Counters:
    counters: Counters = connection.app.state.counters
    return counters


def _peer(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else ""
