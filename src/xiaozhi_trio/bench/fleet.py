"""The load processes as one: they begin together, and what they measured is put together."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from xiaozhi_trio.bench.line_process import LineProcess, line_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


@attrs.define
class Measured:
    """What a request to a fleet measured."""

    samples: dict[str, list[float]] = attrs.field(factory=dict)
    counts: dict[str, int] = attrs.field(factory=dict)
    problems: list[str] = attrs.field(factory=list)

    def of(self, name: str) -> list[float]:
        """The samples of a figure, in milliseconds."""
        return self.samples.get(name, [])

    def count(self, name: str) -> int:
        """How often an event was counted."""
        return self.counts.get(name, 0)

    def merge(self, answer: Mapping[str, Any]) -> None:
        """Add what one process measured."""
        for name, values in answer["samples"].items():
            self.samples.setdefault(name, []).extend(values)
        for name, number in answer["counts"].items():
            self.counts[name] = self.counts.get(name, 0) + number
        self.problems.extend(answer["problems"])


class Fleet:
    """Simulated devices, spread evenly over processes."""

    def __init__(self, processes: Sequence[LineProcess], first_device: int) -> None:
        self._processes = processes
        self._next_device = first_device

    async def ask(self, request: str, **arguments: Any) -> Measured:
        """Ask every process the same."""
        return await self._ask_each(request, [arguments] * len(self._processes))

    async def handshakes(self, url: str, *, parallel: int, seconds: float) -> Measured:
        """Connect, hello, close, by `parallel` devices at a time."""
        return await self._ask_each(
            "handshakes",
            [
                {
                    "url": url,
                    "first_device": self._take(share),
                    "parallel": share,
                    "seconds": seconds,
                }
                for share in self._shares(parallel)
            ],
        )

    async def connect(self, url: str, *, devices: int, parallel: int) -> Measured:
        """Connect devices, `parallel` at a time, that stay until `leave`."""
        return await self._ask_each(
            "connect",
            [
                {
                    "url": url,
                    "first_device": self._take(share),
                    "devices": share,
                    "parallel": max(parallel // len(self._processes), 1),
                }
                for share in self._shares(devices)
            ],
        )

    def _shares(self, total: int) -> list[int]:
        count = len(self._processes)
        return [(total + index) // count for index in range(count)]

    def _take(self, devices: int) -> int:
        first, self._next_device = self._next_device, self._next_device + devices
        return first

    async def _ask_each(self, request: str, arguments: Sequence[Mapping[str, Any]]) -> Measured:
        measured = Measured()

        async def one(process: LineProcess, given: Mapping[str, Any]) -> None:
            measured.merge(await process.ask(request, **given))

        async with trio.open_nursery() as nursery:
            for process, given in zip(self._processes, arguments, strict=True):
                nursery.start_soon(one, process, given)
        return measured


@asynccontextmanager
async def open_fleet(processes: int, *, first_device: int = 1) -> AsyncIterator[Fleet]:
    """Load processes for the block; `first_device` keeps two fleets' devices apart."""
    async with AsyncExitStack() as stack:
        yield Fleet(
            [
                await stack.enter_async_context(
                    line_process("xiaozhi_trio.bench.load", name="load")
                )
                for _ in range(processes)
            ],
            first_device,
        )
