"""Listening sockets and the loop that accepts from them."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_SECONDS: Final = 0.1
"""Rest after a failed accept: the machine is out of something, and others may give it back."""
_EVERY_ADDRESS: Final = ("", "*", "::")
_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class CannotListen(Exception):
    """The port or its certificate cannot be used; the text says why and what to do."""


async def open_listeners(host: str, port: int, *, setting: str) -> list[trio.SocketListener]:
    """Bind a port on every address that `host` names; all listeners have the same port.

    An empty host, `*` and `::` are every interface in IPv4 and IPv6. `setting` is what the
    port is called in `[server]`. Raises `CannotListen`.
    """
    if host not in _EVERY_ADDRESS:
        return await _bind(host, port, setting)
    listeners = await _bind("0.0.0.0", port, setting)
    bound = listeners[0].socket.getsockname()[1]
    try:
        listeners += await trio.open_tcp_listeners(bound, host="::")
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            listeners[0].socket.close()
            raise _cannot_listen("::", bound, setting, error) from error
        logger.bind(reason=os.strerror(error.errno)).info("no IPv6 on this machine")
    return listeners


async def _bind(host: str, port: int, setting: str) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise _cannot_listen(host, port, setting, error) from error
    if port == 0:
        # Each address has a free port of its own then, and only one can be told.
        for listener in listeners[1:]:
            listener.socket.close()
        del listeners[1:]
    return listeners


def _cannot_listen(host: str, port: int, setting: str, error: OSError) -> CannotListen:
    if isinstance(error, socket.gaierror):
        fix = "set [server] host to an address of this machine"
    elif error.errno == errno.EADDRINUSE:
        fix = f"stop what uses the port, or set [server] {setting} to another"
    elif error.errno in (errno.EACCES, errno.EPERM):
        fix = f"set [server] {setting} to 1024 or higher"
    elif error.errno == errno.EADDRNOTAVAIL:
        fix = "set [server] host to an address of this machine, or to 0.0.0.0 for all"
    else:
        fix = f"check [server] host and {setting}"
    return CannotListen(f"cannot listen on {host} port {port} ({error}); {fix}")


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
