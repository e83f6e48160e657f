"""`/health`: what load balancers, the doctor command and people ask first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from starlette.responses import JSONResponse
from starlette.routing import Route

from xiaozhi_trio.http.services import HttpServices

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/health"


@attrs.frozen
class HealthEndpoint:
    """Answers 200 for as long as the process serves: engines that still load are no fault."""

    services: HttpServices

    def routes(self) -> list[Route]:
        """With and without a slash at the end."""
        return [Route(path, self.show, methods=["GET"]) for path in (PATH, f"{PATH}/")]

    async def show(self, _request: Request) -> Response:
        """The health as it is now."""
        return JSONResponse(dict(self.services.health()), headers={"Cache-Control": "no-store"})
