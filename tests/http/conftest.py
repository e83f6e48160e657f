from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
from loguru import logger

from xiaozhi_trio.config.settings import AuthenticationSettings, ServerSettings, Settings
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.services import HttpServices

LAN_ADDRESS = "192.168.7.20"
WEBSOCKET_PORT = 8123
NOW = 1_700_000_000.5


class CountingTokens:
    """Hands out tokens that name what they were issued for."""

    def __init__(self) -> None:
        self.issued: list[tuple[str, str]] = []

    def issue(self, client_id: str, device_id: str) -> str:
        self.issued.append((client_id, device_id))
        return f"token-for-{device_id}-{client_id}"


@pytest.fixture
def tokens() -> CountingTokens:
    return CountingTokens()


@pytest.fixture
def make_services(tokens: CountingTokens) -> Callable[..., HttpServices]:
    def make(
        *,
        server: ServerSettings | None = None,
        authentication: AuthenticationSettings | None = None,
        **changes: Any,
    ) -> HttpServices:
        services = HttpServices(
            settings=Settings(
                server=server or ServerSettings(),
                authentication=authentication or AuthenticationSettings(),
            ),
            tokens=tokens,
            websocket_port=lambda: WEBSOCKET_PORT,
            health=lambda: {"status": "ok", "sessions": 0},
            clock=lambda: NOW,
            lan=lambda: [LAN_ADDRESS],
        )
        return attrs.evolve(services, **changes)

    return make


OpenClient = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def open_client(make_services: Callable[..., HttpServices]) -> OpenClient:
    @asynccontextmanager
    async def open_client(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(
            app=build_app(make_services(**changes)), client=("192.168.7.99", 50_000)
        )
        async with httpx.AsyncClient(
            transport=transport, base_url="http://192.168.7.20:8003"
        ) as client:
            yield client

    return open_client


@pytest.fixture
def log_lines() -> Any:
    """The records logged during the test, as (level, message, bound fields)."""
    lines: list[tuple[str, str, dict[str, Any]]] = []
    sink = logger.add(
        lambda message: lines.append(
            (
                message.record["level"].name,
                message.record["message"],
                dict(message.record["extra"]),
            )
        ),
        level="TRACE",
    )
    yield lines
    logger.remove(sink)
