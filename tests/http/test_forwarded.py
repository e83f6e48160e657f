from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from xiaozhi_trio.config.settings import ServerSettings
from xiaozhi_trio.http.forwarded import ForwardedMiddleware, peer_of
from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks

PROXY = ("10.0.0.1", 40000)
STRANGER = ("192.0.2.66", 6)


async def seen_behind(client: tuple[str, int] | None, **headers: str) -> tuple[Any, str]:
    """The client and the scheme that an application behind the middleware sees."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def nothing(*_: object) -> Any:
        raise AssertionError

    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "raw_path": b"/",
        "client": client,
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    await ForwardedMiddleware(app, TrustedNetworks(["10.0.0.0/8"]))(scope, nothing, nothing)
    return peer_of(Request(seen[0])), seen[0]["scheme"]


@pytest.mark.parametrize(
    ("headers", "client", "scheme"),
    [
        ({}, "10.0.0.1:40000", "http"),
        ({"x_forwarded_for": "203.0.113.1, 192.0.2.1"}, "192.0.2.1", "http"),
        ({"x_forwarded_for": "192.0.2.1, 10.9.9.9"}, "192.0.2.1", "http"),
        ({"x_forwarded_for": "[2001:db8::1]:77"}, "[2001:db8::1]:77", "http"),
        ({"x_forwarded_for": "nonsense"}, "10.0.0.1:40000", "http"),
        ({"x_forwarded_proto": "https"}, "10.0.0.1:40000", "https"),
        ({"x_forwarded_proto": "http"}, "10.0.0.1:40000", "http"),
        ({"forwarded": "for=192.0.2.1;proto=https"}, "192.0.2.1", "https"),
    ],
)
async def test_a_trusted_proxy_is_believed(
    headers: dict[str, str], client: str, scheme: str
) -> None:
    seen, seen_scheme = await seen_behind(PROXY, **headers)
    assert (str(seen), seen_scheme) == (client, scheme)


@pytest.mark.parametrize("client", [STRANGER, None])
async def test_nobody_else_is_believed(client: tuple[str, int] | None) -> None:
    seen = await seen_behind(client, x_forwarded_for="127.0.0.1", x_forwarded_proto="https")
    assert seen == (None if client is None else Endpoint.of(*client), "http")


@pytest.mark.parametrize(
    ("trusted", "base", "peer"),
    [
        (("192.168.7.99",), "https://voice.example/", "192.0.2.1"),
        ((), "http://voice.example:8003/", "192.168.7.99:50000"),
    ],
)
async def test_pages_and_log_are_about_the_client(
    open_client: Any, log_lines: Any, trusted: tuple[str, ...], base: str, peer: str
) -> None:
    headers = {
        "Host": "voice.example",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
    }
    async with open_client(server=ServerSettings(trusted_proxies=trusted)) as client:
        page = await client.get("/", headers=headers)
        assert f"{base}xiaozhi/ota/" in page.text
        await client.get("/nowhere", headers=headers)
    [(_, event, fields)] = log_lines
    assert (event, fields["peer"]) == ("http request refused", peer)
