"""The application on the HTTP port: OTA, health, traces, metrics, vision and a page of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from xiaozhi_trio.http import errors, health, metrics, ota, traces, vision
from xiaozhi_trio.http.advertise import Approach, http_url
from xiaozhi_trio.http.body import UnreadBodyMiddleware
from xiaozhi_trio.http.cors import CorsMiddleware
from xiaozhi_trio.http.forwarded import ForwardedMiddleware
from xiaozhi_trio.wire.endpoint import TrustedNetworks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from xiaozhi_trio.http.services import HttpServices


def build_app(services: HttpServices) -> Starlette:
    """The whole application; needs Trio and no start-up event."""
    server = services.settings.server

    async def index(request: Request) -> Response:
        base = http_url(server, approach=Approach.of(request), lan=services.lan)
        return PlainTextResponse(
            "xiaozhi-trio\n\n"
            "OTA 地址（填入设备或测试页） / OTA address for devices and test pages:\n"
            f"{base}{ota.PATH}\n"
            f"健康状态 / Health:\n{base}{health.PATH}\n"
        )

    app = Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            *ota.OtaEndpoint(services).routes(),
            *health.HealthEndpoint(services).routes(),
            *vision.VisionEndpoint(services).routes(),
            *traces.TracesEndpoint(services.telemetry).routes(),
            *metrics.MetricsEndpoint(services.telemetry).routes(),
        ],
        middleware=[
            Middleware(ForwardedMiddleware, trusted=TrustedNetworks(server.trusted_proxies)),
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
    app.state.services = services
    # Firmware does not follow redirects; a path that is not a route is told so.
    app.router.redirect_slashes = False
    return app
