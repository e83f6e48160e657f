from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from xiaozhi_trio.http.app import build_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import OpenClient
    from xiaozhi_trio.http.services import HttpServices


async def test_the_first_page_names_the_ota_address(open_client: OpenClient) -> None:
    async with open_client() as client:
        answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "http://192.168.7.20:8003/xiaozhi/ota/" in answer.text


@pytest.mark.parametrize(
    "path", ["/nowhere", "/xiaozhi/ota/nothing", "/xiaozhi/ota//", "/xiaozhi", "/%ff"]
)
async def test_an_unknown_path_is_told_the_ota_path_and_the_log_once(
    open_client: OpenClient, path: str, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    async with open_client() as client:
        answer = await client.get(path)
        await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"
    [(level, event, fields)] = log_lines
    assert (level, event, fields["reason"]) == ("INFO", "http request refused", "not_found")
    assert fields["peer"] == "192.168.7.99:50000"
    assert "/xiaozhi/ota/" in answer.json()["message"]


@pytest.mark.parametrize("host", ["[", "[::1", "a b", "\u00fc", "", "x:y:z"])
async def test_a_malformed_host_is_no_fault(open_client: OpenClient, host: str) -> None:
    async with open_client() as client:
        for path, status in [("/", 200), ("/xiaozhi/ota/", 200), ("/no", 404)]:
            answer = await client.get(path, headers={"Host": host.encode("latin-1")})
            assert answer.status_code == status


async def test_a_wrong_method_is_told_the_right_ones(open_client: OpenClient) -> None:
    async with open_client() as client:
        answer = await client.delete("/xiaozhi/ota/")
    assert answer.status_code == 405
    assert answer.json()["error"] == "method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_a_fault_of_ours_is_logged_and_hidden(
    open_client: OpenClient, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("the secret is in here")

    async with open_client(health=broken) as client:
        answer = await client.get("/health")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert [line for line in log_lines if line[0] == "ERROR"] == [
        ("ERROR", "http request failed", {"path": "/health"})
    ]


async def test_a_peer_that_leaves_during_its_body_is_no_fault_of_ours(
    make_services: Callable[..., HttpServices],
    log_lines: list[tuple[str, str, dict[str, Any]]],
) -> None:
    app = build_app(make_services())
    messages = [
        {"type": "http.request", "body": b'{"appl', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/xiaozhi/ota/",
        "raw_path": b"/xiaozhi/ota/",
        "query_string": b"",
        "headers": [(b"device-id", b"aa:bb:cc:dd:ee:ff")],
    }
    await app(scope, receive, send)
    assert {level for level, _, _ in log_lines} == {"DEBUG"}
