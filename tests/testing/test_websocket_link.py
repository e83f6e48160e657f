from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, serve_websocket

from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_websocket import WebSocketRequest

pytestmark = pytest.mark.sockets


class EchoServer:
    """Echoes; hangs up upon `bye`; turns away whom it does not expect."""

    def __init__(self, expected: str = "") -> None:
        self._expected = expected
        self.headers: dict[str, str] = {}

    async def attend(self, request: WebSocketRequest) -> None:
        self.headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        if self._expected and self.headers.get("authorization") != self._expected:
            await request.reject(401)
            return
        connection = await request.accept()
        with suppress(ConnectionClosed):
            while (message := await connection.get_message()) != "bye":
                await connection.send_message(message)
            await connection.aclose(4000, "bye")

    @asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                partial(serve_websocket, self.attend, "127.0.0.1", 0, ssl_context=None)
            )
            yield f"ws://127.0.0.1:{server.port}/xiaozhi/v1/"
            nursery.cancel_scope.cancel()


async def test_messages_go_both_ways_and_the_device_introduces_itself_as_firmware_does() -> None:
    server = EchoServer("Bearer secret")
    async with (
        server.url() as url,
        dial(
            url, device_id="aa:bb:cc:dd:ee:01", client_id="c", token="secret", binary_version=3
        ) as link,
    ):
        await link.send("text")
        await link.send(b"packet")
        assert [await link.receive(), await link.receive()] == ["text", b"packet"]
        assert link.close_code is None
    assert server.headers["device-id"] == "aa:bb:cc:dd:ee:01"
    assert server.headers["client-id"] == "c"
    assert server.headers["protocol-version"] == "3"
    assert "origin" not in server.headers


async def test_a_server_that_hangs_up_is_the_end_and_nothing_can_be_sent() -> None:
    async with EchoServer().url() as url, dial(url, device_id="aa:bb:cc:dd:ee:01") as link:
        await link.send("bye")
        with pytest.raises(trio.EndOfChannel):
            await link.receive()
        assert link.close_code == 4000
        with pytest.raises(trio.BrokenResourceError):
            await link.send("more")


async def test_a_refusal_is_raised_with_its_status() -> None:
    async with EchoServer("Bearer secret").url() as url:
        with pytest.RaisesGroup(
            pytest.RaisesExc(ConnectionRejected, check=lambda error: error.status_code == 401)
        ):
            async with dial(url, device_id="aa:bb:cc:dd:ee:01"):
                pytest.fail("it was let in")
