"""Where Opus encoding runs: in worker threads, a bounded number of them for the whole process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TypeVar, TypeVarTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class EncodingRunner(Protocol):
    """Calls a function that takes CPU time without holding up the loop."""

    async def __call__(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """The function's result; a cancelled caller still waits for the function to end."""


def encoding_threads() -> EncodingRunner:
    """A runner that shares as many threads as there are cores."""
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)

    async def run(function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=limiter)

    return run
