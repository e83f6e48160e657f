"""An HTTP server on memory streams, so that streaming, stalls and disconnects need no real time."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import attrs
import h11
import httpcore
import httpx
import orjson
import pytest
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence


@attrs.define
class Exchange:
    """One request at the server, and the means to answer it piece by piece."""

    target: str
    headers: dict[str, str]
    body: bytes
    _machine: h11.Connection
    _stream: trio.abc.Stream

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    async def begin(self, status: int = 200, **headers: str) -> None:
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await self._send(h11.Response(status_code=status, headers=named))

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self._send(h11.Data(data=piece))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        await self.begin(status, **headers)
        await self.send(body)
        await self.end()

    async def break_off(self) -> None:
        await self._stream.aclose()

    async def wait_for_disconnect(self) -> None:
        while await self._stream.receive_some():
            pass

    async def _send(self, event: h11.Event) -> None:
        data = self._machine.send(event)
        if data:
            await self._stream.send_all(data)


class MemoryServer:
    """Serves every connection with `handler`; HTTP/1.1 with keep-alive."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.handler: Callable[[Exchange], Awaitable[None]] = _forget
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.refusals: list[Exception] = []

    @property
    def transport(self) -> httpx.AsyncHTTPTransport:
        transport = httpx.AsyncHTTPTransport(verify=False)
        transport._pool = httpcore.AsyncConnectionPool(
            keepalive_expiry=60.0, network_backend=_Backend(self)
        )
        return transport

    async def listen(self) -> str:
        """Serve a port of the loopback address as well; its URL."""
        listeners = await self._nursery.start(
            functools.partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
        )
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def connect(self) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        if self.refusals:
            raise self.refusals.pop(0)
        ours, theirs = trio.testing.memory_stream_pair()
        self.connections += 1
        self._nursery.start_soon(self._serve, ours)
        return _NetworkStream(theirs)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        machine = h11.Connection(h11.SERVER)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while (exchange := await self._receive(machine, stream)) is not None:
                self.exchanges.append(exchange)
                await self.handler(exchange)
                if machine.our_state is not h11.DONE:
                    break
                machine.start_next_cycle()
        await stream.aclose()

    async def _receive(self, machine: h11.Connection, stream: trio.abc.Stream) -> Exchange | None:
        request: h11.Request | None = None
        body = b""
        while True:
            event = machine.next_event()
            if event is h11.NEED_DATA:
                machine.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                headers = {name.decode(): value.decode() for name, value in request.headers}
                return Exchange(request.target.decode(), headers, body, machine, stream)
            else:
                return None


async def _forget(exchange: Exchange) -> None:
    raise AssertionError("the test set no handler")


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def connect_tcp(
        self, host: str, port: int, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        return await self._server.connect()


class _NetworkStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, **options: Any) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, **options: Any) -> None:
        try:
            await self._stream.send_all(buffer)
        except trio.BrokenResourceError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


@pytest.fixture
async def memory_server(autojump_clock: trio.testing.MockClock) -> AsyncIterator[MemoryServer]:
    async with trio.open_nursery() as nursery:
        yield MemoryServer(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def socket_server() -> AsyncIterator[MemoryServer]:
    """To `listen`, in real time."""
    async with trio.open_nursery() as nursery:
        yield MemoryServer(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def log_lines() -> Iterable[Sequence[dict[str, Any]]]:
    """The log as message and bound fields."""
    from loguru import logger

    lines: list[dict[str, Any]] = []
    handle = logger.add(
        lambda message: lines.append(
            {"level": message.record["level"].name, "message": message.record["message"]}
            | message.record["extra"]
        ),
        format="{message}",
    )
    yield lines
    logger.remove(handle)
