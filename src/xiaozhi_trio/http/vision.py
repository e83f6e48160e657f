"""Questions about pictures: where cameras send them, and the answer while no model is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from xiaozhi_trio.http.advertise import Approach, http_url
from xiaozhi_trio.http.errors import error_response
from xiaozhi_trio.http.services import HttpServices

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/mcp/vision/explain"


@attrs.frozen
class VisionEndpoint:
    """Answers the vision path."""

    services: HttpServices

    def routes(self) -> list[Route]:
        """With and without a slash at the end."""
        return [Route(path, self.serve, methods=["GET", "POST"]) for path in (PATH, f"{PATH}/")]

    async def serve(self, request: Request) -> Response:
        """Tell a person, answer a camera."""
        return self.explain() if request.method == "POST" else self.tell(request)

    def tell(self, request: Request) -> Response:
        """For a person who opens the address in a browser."""
        base = http_url(
            self.services.settings.server, approach=Approach.of(request), lan=self.services.lan
        )
        return PlainTextResponse(
            f"MCP Vision 接口运行正常，视觉解释接口地址是：{base}{PATH}\n"
            f"The vision endpoint is {base}{PATH}; no vision model is configured.\n"
        )

    def explain(self) -> Response:
        """Decline the picture without taking it into memory."""
        return error_response(
            503,
            "vision_not_configured",
            "No vision model is configured on this server. 服务器未配置视觉模型。",
        )
