from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import OpenClient

OTA = "/xiaozhi/ota/"
CLIENT_HEADERS = {"content-type", "device-id", "client-id", "authorization"}


def allowed_headers(headers: dict[str, str]) -> set[str]:
    return {name.strip() for name in headers["access-control-allow-headers"].split(",")}


async def test_a_browser_page_gets_through_preflight_and_post(open_client: OpenClient) -> None:
    page = {"Origin": "http://127.0.0.1:8006"}
    async with open_client() as client:
        preflight = await client.options(
            OTA,
            headers=page
            | {
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "client-id,content-type,device-id",
            },
        )
        assert preflight.is_success
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert allowed_headers(preflight.headers) >= CLIENT_HEADERS

        answer = await client.post(
            OTA,
            headers=page
            | {
                "Content-Type": "application/json",
                "Device-Id": "02:00:00:00:00:01",
                "Client-Id": "web_test_client",
            },
            content=b'{"application":{"version":"1.0"}}',
        )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json()["websocket"]["url"].startswith("ws://")


@pytest.mark.parametrize(
    "path", [OTA, "/xiaozhi/ota", "/xiaozhi/ota/activate", "/mcp/vision/explain", "/health", "/no"]
)
async def test_a_preflight_without_request_headers_is_allowed(
    open_client: OpenClient, path: str
) -> None:
    async with open_client() as client:
        answer = await client.options(path)
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    assert allowed_headers(answer.headers) >= CLIENT_HEADERS
    assert "access-control-allow-private-network" not in answer.headers


async def test_unusual_request_headers_are_allowed_but_only_real_names(
    open_client: OpenClient,
) -> None:
    asked = "X-Custom, Authorization, bad name, \u00fc, " + "y" * 65
    async with open_client() as client:
        answer = await client.options(
            OTA, headers={"Access-Control-Request-Headers": asked.encode("latin-1")}
        )
    assert answer.status_code == 204
    names = answer.headers["access-control-allow-headers"].split(", ")
    assert "x-custom" in names
    assert names.count("authorization") == 1
    assert all(name.isascii() and " " not in name and len(name) <= 64 for name in names)


async def test_a_flood_of_request_headers_is_not_mirrored(open_client: OpenClient) -> None:
    asked = ",".join(f"x-{number}" for number in range(1000))
    async with open_client() as client:
        answer = await client.options(OTA, headers={"Access-Control-Request-Headers": asked})
    assert len(allowed_headers(answer.headers)) < 50


async def test_a_page_of_the_internet_may_ask_a_private_network(open_client: OpenClient) -> None:
    async with open_client() as client:
        answer = await client.options(
            OTA, headers={"Access-Control-Request-Private-Network": "true"}
        )
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", OTA, 200),
        ("POST", OTA, 400),
        ("DELETE", OTA, 405),
        ("GET", "/health", 200),
        ("POST", "/mcp/vision/explain", 503),
        ("GET", "/nowhere", 404),
    ],
)
async def test_every_answer_is_readable_by_a_page(
    open_client: OpenClient, method: str, path: str, status: int
) -> None:
    async with open_client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert allowed_headers(answer.headers) >= CLIENT_HEADERS
    assert "POST" in answer.headers["access-control-allow-methods"]
