from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import OpenClient

PATH = "/mcp/vision/explain"


async def test_a_person_is_told_the_address(open_client: OpenClient) -> None:
    async with open_client() as client:
        answer = await client.get(PATH)
    assert answer.status_code == 200
    assert f"http://192.168.7.20:8003{PATH}" in answer.text


@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
async def test_a_picture_is_declined_with_the_reason(open_client: OpenClient, path: str) -> None:
    files = {"question": (None, "what is it?"), "image": ("a.jpg", b"\xff\xd8" * 5000)}
    async with open_client() as client:
        answer = await client.post(path, files=files, headers={"Origin": "http://page.example"})
    assert answer.status_code == 503
    assert answer.json()["success"] is False
    assert "vision model" in answer.json()["message"]
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_picture_in_chunks_is_declined_too(open_client: OpenClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async with open_client() as client:
        answer = await client.post(PATH, content=chunks())
    assert answer.status_code == 503
