"""Every error of the HTTP port as JSON with a plain reason, never a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import orjson
from loguru import logger
from starlette.responses import JSONResponse, Response

from xiaozhi_trio.http.forwarded import peer_of
from xiaozhi_trio.wire.answer import Answer

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection, Request

    from xiaozhi_trio.http.services import HttpServices
    from xiaozhi_trio.wire.refusal import HandshakeRefused

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
    """The answer to a request that cannot be served."""
    return JSONResponse(_body(reason, message), status, {"Cache-Control": "no-store"})


def refusal_answer(refusal: HandshakeRefused) -> Answer:
    """The answer to a peer that does not get as far as the application; pages may read it too."""
    return Answer(
        status=refusal.status,
        body=orjson.dumps(_body(refusal.reason, refusal.message)),
        content_type="application/json",
        headers=(
            *refusal.headers,
            ("Cache-Control", "no-store"),
            ("Access-Control-Allow-Origin", "*"),
        ),
    )


def _body(reason: str, message: str) -> dict[str, object]:
    """What every error looks like."""
    return {"success": False, "error": reason, "message": message}


async def answer_refused(request: Request, failure: Exception) -> Response:
    """Tell the peer, the log and the counters the same reason."""
    refused = cast("RequestRefused", failure)
    _tell_refused(request, refused.reason, detail=refused.message)
    return error_response(refused.status, refused.reason, refused.message)


async def answer_http_exception(request: Request, failure: Exception) -> Response:
    """Answer for the router: an unknown path or a method the path does not know."""
    unknown = cast("HTTPException", failure)
    reason = "not_found" if unknown.status_code == _NOT_FOUND else "method_not_allowed"
    _tell_refused(request, reason, detail=unknown.detail)
    if unknown.status_code == _NOT_FOUND:
        return error_response(
            _NOT_FOUND,
            reason,
            "Nothing here; devices and test pages use /xiaozhi/ota/. "
            "此地址不存在，OTA 地址是 /xiaozhi/ota/。",
        )
    response = error_response(
        unknown.status_code,
        reason,
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
    _services(connection).counters.count("http_request_failures")
    logger.opt(exception=failure).bind(path=connection.scope["path"]).error("http request failed")
    return error_response(
        500,
        "internal_error",
        "The server failed to answer; its log says why. 服务器内部错误，详见服务器日志。",
    )


def _tell_refused(request: Request, reason: str, *, detail: str) -> None:
    services = _services(request)
    services.counters.count("http_requests_refused", reason=reason)
    services.reporter.tell(
        "INFO",
        "http request refused",
        peer_of(request),
        reason=reason,
        detail=detail,
        method=request.method,
        path=request.scope["path"],
    )


def _services(connection: HTTPConnection) -> HttpServices:
    services: HttpServices = connection.app.state.services
    return services
