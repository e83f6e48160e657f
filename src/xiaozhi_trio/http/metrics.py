"""`/metrics`: what Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from starlette.responses import Response
from starlette.routing import Route

from xiaozhi_trio.http.errors import error_response
from xiaozhi_trio.http.reading import require_reader
from xiaozhi_trio.telemetry.extra import INSTALL
from xiaozhi_trio.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from starlette.requests import Request

PATH: Final = "/metrics"


@attrs.frozen
class MetricsEndpoint:
    """Answers with the metrics, or with what to install for them."""

    telemetry: Telemetry

    def routes(self) -> list[Route]:
        """As Prometheus asks for it by default."""
        return [Route(PATH, self.show, methods=["GET"])]

    async def show(self, request: Request) -> Response:
        """The metrics as they are now. Raises `RequestRefused`."""
        require_reader(request, self.telemetry.settings.read_token)
        metrics = self.telemetry.metrics
        if metrics is None:
            return error_response(
                501,
                "telemetry_not_installed",
                f"Metrics need an extra: {INSTALL}, then restart the server. "
                f"指标功能需要安装扩展：{INSTALL}，然后重启服务器。",
            )
        return Response(
            await metrics.page(),
            headers={"Content-Type": metrics.content_type, "Cache-Control": "no-store"},
        )
