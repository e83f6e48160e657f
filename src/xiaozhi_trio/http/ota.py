"""OTA: the first thing a device asks, and where it learns the WebSocket address.

The firmware, the desktop clients and the browser test pages all start here. The
answer holds what they share: no `mqtt` object, because its mere presence makes the
firmware prefer MQTT; no `activation` key, because its mere presence makes a desktop
client wait for one; always a `websocket.token` string, because an SDK fails without
it; always `websocket.version`, because the firmware keeps an older one otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from loguru import logger
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from xiaozhi_trio.http.advertise import Approach, websocket_url
from xiaozhi_trio.http.body import read_body
from xiaozhi_trio.http.errors import RequestRefused
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.wire.device_id import normalise_device_id
from xiaozhi_trio.wire.handshake import Handshake, parse_handshake
from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/xiaozhi/ota/"
BODY_BYTES = 65_536
"""Firmware sends about 2 KiB."""
UNKNOWN_VERSION = "0.0.0"
BINARY_PROTOCOL = 1
"""Of the WebSocket's audio frames: bare Opus packets."""

# Firmware parses each part as a C int and reboots where that fails.
_VERSION = re.compile(r"[0-9]{1,9}(?![0-9])(?:\.[0-9]{1,9}(?![0-9])){0,7}")
_NO_STORE = {"Cache-Control": "no-store"}


def reported_version(body: bytes) -> str:
    """The firmware version a device reports, as dotted integers that every client can parse.

    The body's `application.version`, or `UNKNOWN_VERSION` where it tells none or is no
    JSON, as with firmware that puts a Wi-Fi name with a quote in it. What follows the
    integers is cut off, which no client takes for a newer version.
    """
    version = _version_in(body)
    match = _VERSION.match(version.strip()) if isinstance(version, str) else None
    return match.group() if match else UNKNOWN_VERSION


def _version_in(body: bytes) -> object:
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    application = document.get("application") if isinstance(document, dict) else None
    return application.get("version") if isinstance(application, dict) else None


@attrs.frozen
class OtaEndpoint:
    """Answers the OTA paths, with and without a slash at the end, and never redirects.

    Raises ValueError where a device id of the settings is not one.
    """

    services: HttpServices
    _allowed: frozenset[str] = attrs.field(init=False, repr=False)

    @_allowed.default
    def _normalise_allowed(self) -> frozenset[str]:
        allowed = self.services.settings.authentication.allowed_devices
        try:
            return frozenset(normalise_device_id(each) for each in allowed)
        except ValueError as error:
            raise ValueError(f"authentication.allowed_devices: {error}") from error

    def routes(self) -> list[Route]:
        """Firmware does not follow redirects, so each spelling is a route."""
        bare = PATH.rstrip("/")
        return [
            *(Route(path, self.serve, methods=["GET", "POST"]) for path in (bare, PATH)),
            *(
                Route(path, self.activate, methods=["GET", "POST"])
                for path in (f"{PATH}activate", f"{PATH}activate/")
            ),
        ]

    async def serve(self, request: Request) -> Response:
        """Tell a person, answer a device."""
        if request.method == "POST":
            return await self.answer(request)
        return await self.tell(request)

    async def tell(self, request: Request) -> Response:
        """For a person who opens the address in a browser."""
        url = self._websocket_url(request)
        return PlainTextResponse(
            f"OTA接口运行正常，向设备发送的websocket地址是：{url}\n"
            f"The OTA endpoint works; devices are sent to the WebSocket address {url}\n",
            headers=_NO_STORE,
        )

    async def answer(self, request: Request) -> Response:
        """What a device asks at boot.

        Raises `RequestRefused` where the device does not say who it is, or its body is
        too large or too slow. A body that is no JSON is no obstacle.
        """
        identity = _identity(request)
        body = await read_body(
            request,
            limit=BODY_BYTES,
            seconds=self.services.settings.limits.handshake_seconds,
        )
        version = reported_version(body)
        url = self._websocket_url(request)
        logger.bind(device=identity.device_id, firmware=version, url=url).info("ota answered")
        return JSONResponse(
            {
                "server_time": {
                    "timestamp": int(self.services.clock() * 1000),
                    "timezone_offset": self.services.settings.server.timezone_offset_minutes,
                },
                # The version the device has is never newer, so it stays as it is.
                "firmware": {"version": version, "url": ""},
                "websocket": {
                    "url": url,
                    "token": self._token(identity),
                    "version": BINARY_PROTOCOL,
                },
            },
            headers=_NO_STORE,
        )

    async def activate(self, _request: Request) -> Response:
        """Every device is active here; status 200 tells a client that asks that it is done."""
        return JSONResponse(
            {
                "success": True,
                "message": "Nothing to activate: this server takes every device. "
                "无需激活，设备可直接使用。",
            },
            headers=_NO_STORE,
        )

    def _websocket_url(self, request: Request) -> str:
        return websocket_url(
            self.services.settings.server,
            port=self.services.websocket_port(),
            approach=Approach.of(request),
            lan=self.services.lan,
        )

    def _token(self, identity: Handshake) -> str:
        needed = self.services.settings.authentication.enabled
        if not needed or identity.device_id in self._allowed:
            return ""
        return self.services.tokens.issue(identity.client_id, identity.device_id)


def _identity(request: Request) -> Handshake:
    """Who asks, told by the same rules and refused in the same words as on the WebSocket."""
    try:
        return parse_handshake(request.headers.raw, b"?" + request.scope["query_string"])
    except HandshakeRefused as refused:
        raise RequestRefused(
            400, refused.reason, f"{refused.message_en}; {refused.fix}. {refused.message_zh}。"
        ) from refused
