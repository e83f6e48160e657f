"""The server that is measured: one of our own in a child process, or a running one by URL."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from xiaozhi_trio.bench.line_process import line_process
from xiaozhi_trio.bench.procfs import Cost, cost_of, listener_of
from xiaozhi_trio.bench.speculation import Speculation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.bench.line_process import LineProcess
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
    barge_ins: Sequence[int] = ()
    """Packets of the bench's speech after which it falls silent for an interruption."""
    speculation: Callable[[], Awaitable[Speculation]] | None = None
    """What it prepared up to now; None: unknown. Raises `ChildFailed`."""

    def cost(self) -> Cost | None:
        """What it has cost up to now. Raises `NoSuchProcess` where it has gone."""
        return None if self.pid is None else cost_of(self.pid)


class Engines(enum.Enum):
    """What stands behind a server of our own; the value is its name on the command line."""

    SCRIPTED = "scripted"
    """Engines that keep to the script, within the server."""
    OPENAI = "openai"
    """The real HTTP engines, and a stand-in that keeps to the script in a process of its own."""


@asynccontextmanager
async def own_server(script: Script, engines: Engines, log: IO[bytes]) -> AsyncIterator[Target]:
    """A server of this version for the block; `log` takes what it logs. Raises `ChildFailed`."""
    told = attrs.asdict(script)
    async with AsyncExitStack() as stack:
        stand_in, name = None, "xiaozhi-trio"
        if engines is Engines.OPENAI:
            process = await stack.enter_async_context(
                line_process("xiaozhi_trio.bench.stand_in", name="stand-in", stderr=log)
            )
            stand_in = (await process.ask("start", script=told))["base_url"]
            name = "xiaozhi-trio, engines over HTTP"
        process = await stack.enter_async_context(
            line_process("xiaozhi_trio.bench.served", name="server", stderr=log)
        )
        started = await process.ask("start", script=told, stand_in=stand_in)
        yield Target(
            name=name, pid=process.pid, speculation=partial(_speculation, process), **started
        )


async def _speculation(process: LineProcess) -> Speculation:
    return Speculation(**await process.ask("speculation"))


def running_server(url: str) -> Target:
    """A server that somebody else has started."""
    address = urlsplit(url)
    local = address.hostname in {"127.0.0.1", "localhost", "::1"}
    return Target(
        name=address.netloc, url=url, pid=listener_of(address.port or 80) if local else None
    )
