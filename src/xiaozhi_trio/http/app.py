"""The application on the HTTP port: OTA, health, vision and a page that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from xiaozhi_trio.http import errors, health, ota, vision
from xiaozhi_trio.http.advertise import Approach, http_url, websocket_url
from xiaozhi_trio.http.body import UnreadBodyMiddleware
from xiaozhi_trio.http.cors import CorsMiddleware

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

    from xiaozhi_trio.http.services import HttpServices


def build_app(services: HttpServices) -> Starlette:
    """The whole application; needs Trio and no start-up event."""

    async def index(request: Request) -> Response:
        base = http_url(services.settings.server, approach=Approach.of(request), lan=services.lan)
        return PlainTextResponse(
            "xiaozhi-trio\n\n"
            "OTA 地址（填入设备或测试页） / OTA address for devices and test pages:\n"
            f"{base}{ota.PATH}\n"
            f"健康状态 / Health:\n{base}{health.PATH}\n"
        )

    async def wrong_port(websocket: WebSocket) -> None:
        url = websocket_url(
            services.settings.server,
            port=services.websocket_port(),
            approach=Approach.of(websocket),
            lan=services.lan,
        )
        logger.bind(reason="wrong_port", url=url, path=websocket.scope["path"]).warning(
            "websocket handshake on the http port"
        )
        await websocket.send_denial_response(
            errors.error_response(
                404,
                "wrong_port",
                f"This is the HTTP port; the WebSocket address is {url} . "
                f"这是 HTTP 端口，WebSocket 地址是 {url} 。",
            )
        )

    app = Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            *ota.OtaEndpoint(services).routes(),
            *health.HealthEndpoint(services).routes(),
            *vision.VisionEndpoint(services).routes(),
            WebSocketRoute("/{path:path}", wrong_port),
        ],
        middleware=[
            Middleware(UnreadBodyMiddleware),
            Middleware(CorsMiddleware),
            # Starlette answers an unforeseen exception outside of all middleware, where
            # CORS would miss it, and raises it on; here it is answered and logged once.
            Middleware(ExceptionMiddleware, handlers={Exception: errors.answer_failure}),
        ],
        exception_handlers={
            HTTPException: errors.answer_http_exception,
            errors.RequestRefused: errors.answer_refused,
            ClientDisconnect: errors.answer_disconnect,
        },
    )
    app.state.counters = services.counters
    # Firmware does not follow redirects; a path that is not a route is told so.
    app.router.redirect_slashes = False
    return app
