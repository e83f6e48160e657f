"""Listening sockets and the loop that accepts from them."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.config.settings import ServerSettings

_PAUSE_SECONDS: Final = 0.1
"""Rest after a failed accept: the machine is out of something, and others may give it back."""
_EVERY_ADDRESS: Final = ("", "*", "::")
_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class CannotListen(Exception):
    """The port or the certificate cannot be used; the text says why and what to do."""


async def open_listeners(server: ServerSettings) -> list[trio.SocketListener]:
    """Bind the WebSocket port on every address that `host` names.

    An empty host, `*` and `::` are every interface in IPv4 and IPv6. Raises
    `CannotListen`.
    """
    if server.host not in _EVERY_ADDRESS:
        return await _bind(server.host, server.websocket_port)
    listeners = await _bind("0.0.0.0", server.websocket_port)
    port = listeners[0].socket.getsockname()[1]
    try:
        listeners += await trio.open_tcp_listeners(port, host="::")
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            listeners[0].socket.close()
            raise _cannot_listen("::", port, error) from error
        logger.bind(reason=os.strerror(error.errno)).info("no IPv6 on this machine")
    return listeners


async def _bind(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    if isinstance(error, socket.gaierror):
        fix = "set [server] host to an address of this machine"
    elif error.errno == errno.EADDRINUSE:
        fix = "stop what uses the port, or set [server] websocket_port to another"
    elif error.errno == errno.EACCES:
        fix = "set [server] websocket_port to 1024 or higher"
    else:
        fix = "check [server] host and websocket_port"
    return CannotListen(f"cannot listen on {host} port {port} ({error}); {fix}")


def load_tls(server: ServerSettings) -> ssl.SSLContext | None:
    """The TLS context of the settings; None where they ask for none.

    Reads files: call it before the event loop or in a thread. Raises `CannotListen`.
    """
    if not server.tls_certificate and not server.tls_key:
        return None
    if not (server.tls_certificate and server.tls_key):
        given, missing = (
            ("tls_certificate", "tls_key") if server.tls_certificate else
            ("tls_key", "tls_certificate")
        )  # fmt: skip
        raise CannotListen(
            f"[server] {given} is set and {missing} is not; set both for wss://, or none for ws://"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = Path(server.tls_certificate), Path(server.tls_key)
    try:
        context.load_cert_chain(certificate.expanduser(), key.expanduser(), password="")
    except OSError as error:
        raise CannotListen(
            f"the TLS certificate {certificate} with the key {key} cannot be used ({error}); both "
            "are PEM files, the key without a password"
        ) from error
    return context


def _fix_for_accept(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n), or lower [limits] connections"
    return "check the memory and the network of this machine"


async def accept_forever(
    listener: trio.SocketListener, welcome: Callable[[trio.SocketStream], None]
) -> None:
    """Accept until cancelled and hand each stream to `welcome`; closes the listener at the end.

    No failure to accept ends the loop: out of file descriptors or memory, it rests
    and goes on.
    """
    failing = False
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if not failing:
                    logger.bind(reason=str(error), fix=_fix_for_accept(error)).error(
                        "cannot accept connections"
                    )
                failing = True
                await trio.sleep(_PAUSE_SECONDS)
                continue
            if failing:
                logger.info("connections are accepted again")
                failing = False
            welcome(stream)
