from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from loguru import logger

from xiaozhi_trio.listener import CannotListen, accept_forever, open_listeners

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """Log records as dicts: message, level, and the bound fields."""
    records: list[dict[str, Any]] = []

    def sink(message: Any) -> None:
        record = message.record
        records.append(
            {"message": record["message"], "level": record["level"].name, **record["extra"]}
        )

    handler = logger.add(sink, level="TRACE")
    yield records
    logger.remove(handler)


class Flaky:
    """A listener whose accepts have the given outcomes; the last one is for ever."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)
        self.closed = False

    async def __aenter__(self) -> Flaky:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def accept(self) -> Any:
        await trio.lowlevel.checkpoint()
        if not self._outcomes:
            await trio.sleep_forever()
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM])
async def test_failures_to_accept_are_survived_and_told_once(
    number: int, log: list[dict[str, Any]], autojump_clock: trio.testing.MockClock
) -> None:
    failure = OSError(number, os.strerror(number))
    listener = Flaky("a", failure, failure, failure, "b", failure, "c")
    accepted: list[Any] = []
    with trio.move_on_after(1):
        await accept_forever(listener, accepted.append)
    assert accepted == ["a", "b", "c"]
    assert listener.closed
    failures = [line for line in log if line["message"] == "cannot accept connections"]
    assert len(failures) == 2
    assert all(line["level"] == "ERROR" and line["fix"] for line in failures)


@pytest.mark.sockets
@pytest.mark.parametrize("host", ["", "*", "::"])
async def test_every_address_is_one_port_in_both_families(host: str) -> None:
    listeners = await open_listeners(host, 0, setting="http_port")
    try:
        ports = {listener.socket.getsockname()[1] for listener in listeners}
        families = [listener.socket.family for listener in listeners]
    finally:
        for listener in listeners:
            listener.socket.close()
    assert len(ports) == 1
    assert families[0] == socket.AF_INET


@pytest.mark.sockets
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRINUSE])
async def test_second_family_that_cannot_be_bound(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = trio.open_tcp_listeners

    async def without_ipv6(port: int, *, host: str) -> list[trio.SocketListener]:
        if host == "::":
            raise OSError(number, os.strerror(number))
        return await bind(port, host=host)

    monkeypatch.setattr(trio, "open_tcp_listeners", without_ipv6)
    if number == errno.EADDRINUSE:
        with pytest.raises(CannotListen, match="cannot listen on ::"):
            await open_listeners("", 0, setting="http_port")
    else:
        (listener,) = await open_listeners("", 0, setting="http_port")
        listener.socket.close()


@pytest.mark.sockets
async def test_port_in_use_is_told_with_what_to_do() -> None:
    (listener,) = await open_listeners("127.0.0.1", 0, setting="http_port")
    port = listener.socket.getsockname()[1]
    try:
        with pytest.raises(CannotListen, match=f"port {port} .*http_port"):
            await open_listeners("127.0.0.1", port, setting="http_port")
    finally:
        listener.socket.close()


@pytest.mark.parametrize(
    ("failure", "fix"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "host"),
        (OSError(errno.EACCES, "denied"), "1024"),
        (OSError(errno.EADDRNOTAVAIL, "no"), "0.0.0.0"),
        (OSError(errno.ENOBUFS, "no"), "check"),
        (OSError(errno.EPERM, "denied"), "http_port to 1024"),
    ],
)
async def test_reasons_not_to_listen(
    failure: OSError, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(port: int, *, host: str) -> None:
        raise failure

    monkeypatch.setattr(trio, "open_tcp_listeners", fail)
    with pytest.raises(CannotListen, match=fix):
        await open_listeners("x", 1, setting="http_port")


@pytest.mark.sockets
async def test_one_free_port_is_told_where_a_host_has_many_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = [*(await trio.open_tcp_listeners(0, host="127.0.0.1"))]
    opened += await trio.open_tcp_listeners(0, host="127.0.0.1")
    second = opened[1]

    async def two(port: int, *, host: str) -> list[trio.SocketListener]:
        return opened

    monkeypatch.setattr(trio, "open_tcp_listeners", two)
    (listener,) = await open_listeners("localhost", 0, setting="http_port")
    assert second.socket.fileno() == -1
    listener.socket.close()
