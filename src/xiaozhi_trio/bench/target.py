"""The server that is measured: one of our own in a child process, or a running one by URL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from xiaozhi_trio.bench.line_process import line_process
from xiaozhi_trio.bench.procfs import Cost, cost_of, listener_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.bench.script import Script


@attrs.frozen(kw_only=True)
class Target:
    """Where the devices dial, and what is known of it."""

    name: str
    url: str
    pid: int | None
    """Its process, where that runs on this machine and is ours to look at."""
    ends_with: int | None = None
    """Packets of the bench's question after which it finds the end; None: unknown."""
    engines_ms: float | None = None
    """What its engines take of the time to the first frame of speech; None: unknown."""

    def cost(self) -> Cost | None:
        """What it has cost up to now. Raises `NoSuchProcess` where it has gone."""
        return None if self.pid is None else cost_of(self.pid)


@asynccontextmanager
async def own_server(script: Script, log: IO[bytes]) -> AsyncIterator[Target]:
    """A server of this version for the block; `log` takes what it logs. Raises `ChildFailed`."""
    async with line_process("xiaozhi_trio.bench.served", name="server", stderr=log) as process:
        started = await process.ask("start", script=attrs.asdict(script))
        yield Target(name="xiaozhi-trio", pid=process.pid, **started)


def running_server(url: str) -> Target:
    """A server that somebody else has started."""
    address = urlsplit(url)
    local = address.hostname in {"127.0.0.1", "localhost", "::1"}
    return Target(
        name=address.netloc, url=url, pid=listener_of(address.port or 80) if local else None
    )
