from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import OpenClient


@pytest.mark.parametrize("path", ["/health", "/health/"])
async def test_health_is_what_the_server_says_at_that_moment(
    open_client: OpenClient, path: str
) -> None:
    health = {
        "status": "starting",
        "version": "0.1.0",
        "uptime_seconds": 1.5,
        "sessions": 0,
        "engines": {"asr": {"name": "whisper", "state": "loading"}},
    }
    async with open_client(health=lambda: health) as client:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.json() == health
        health["status"] = "ok"
        assert (await client.get(path)).json()["status"] == "ok"
    assert answer.headers["cache-control"] == "no-store"
