from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
import trustme

from xiaozhi_trio.config.settings import ServerSettings
from xiaozhi_trio.gateway.listener import (
    CannotListen,
    accept_forever,
    load_tls,
    open_listeners,
)

if TYPE_CHECKING:
    from pathlib import Path


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
    listeners = await open_listeners(ServerSettings(host=host, websocket_port=0))
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
    settings = ServerSettings(host="", websocket_port=0)
    if number == errno.EADDRINUSE:
        with pytest.raises(CannotListen, match="cannot listen on ::"):
            await open_listeners(settings)
    else:
        (listener,) = await open_listeners(settings)
        listener.socket.close()


@pytest.mark.sockets
async def test_port_in_use_is_told_with_what_to_do() -> None:
    (listener,) = await open_listeners(ServerSettings(host="127.0.0.1", websocket_port=0))
    port = listener.socket.getsockname()[1]
    try:
        with pytest.raises(CannotListen, match=f"port {port} .*websocket_port"):
            await open_listeners(ServerSettings(host="127.0.0.1", websocket_port=port))
    finally:
        listener.socket.close()


@pytest.mark.parametrize(
    ("failure", "fix"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "host"),
        (OSError(errno.EACCES, "denied"), "1024"),
        (OSError(errno.EADDRNOTAVAIL, "no"), "check"),
    ],
)
async def test_reasons_not_to_listen(
    failure: OSError, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(port: int, *, host: str) -> None:
        raise failure

    monkeypatch.setattr(trio, "open_tcp_listeners", fail)
    with pytest.raises(CannotListen, match=fix):
        await open_listeners(ServerSettings(host="x", websocket_port=1))


def test_tls_is_off_without_a_certificate() -> None:
    assert load_tls(ServerSettings()) is None


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_half_of_a_certificate_is_told(given: str) -> None:
    with pytest.raises(CannotListen, match=rf"\[server\] {given} is set"):
        load_tls(attrs.evolve(ServerSettings(), **{given: "x.pem"}))


def test_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(CannotListen, match=r"missing\.pem"):
        load_tls(ServerSettings(tls_certificate=missing, tls_key=missing))
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(CannotListen, match=r"broken\.pem"):
        load_tls(ServerSettings(tls_certificate=str(broken), tls_key=str(broken)))


def test_certificate_is_loaded(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("example.org")
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    settings = ServerSettings(tls_certificate=str(certificate), tls_key=str(key))
    assert load_tls(settings) is not None
