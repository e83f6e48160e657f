"""Turns on their way out of the process, off the path of any conversation.

Each exporter has a task and a bounded channel of its own; one that cannot keep up
loses turns, which is counted, and holds nobody up.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio
from loguru import logger

from xiaozhi_trio.telemetry.turn_trace import TurnTrace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from xiaozhi_trio.telemetry.counters import Counters
    from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper

ROOM: Final = 256
"""Turns that wait for an exporter; further ones are lost to it."""
BATCH: Final = 64
FLUSH_SECONDS: Final = 2.0
"""How long an exporter has for what is left when the server stops."""


class TraceExporter(Protocol):
    """Where turns go."""

    @property
    def name(self) -> str:
        """What it is called in the counter `traces_dropped`."""

    async def take(self, traces: Sequence[TurnTrace]) -> None:
        """Hand these on; may be cancelled, and then loses them. Raises nothing else."""

    def close(self) -> None:
        """Let go of everything; does not wait."""


@asynccontextmanager
async def exporting(
    keeper: TraceKeeper, exporters: Sequence[TraceExporter], counters: Counters
) -> AsyncIterator[None]:
    """For the length of the block, give every turn that is over to the exporters.

    Turns that still wait at its end are given out within `FLUSH_SECONDS`, unless the
    block is cancelled.
    """
    async with trio.open_nursery() as nursery:
        exports = [_Export(exporter, counters) for exporter in exporters]
        for export in exports:
            nursery.start_soon(export.run)

        def tell(trace: TurnTrace) -> None:
            for export in exports:
                export.tell(trace)

        try:
            with keeper.telling(tell):
                yield
        finally:
            for export in exports:
                export.finish()
            nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS


class _Export:
    def __init__(self, exporter: TraceExporter, counters: Counters) -> None:
        self._exporter = exporter
        self._counters = counters
        self._send, self._receive = trio.open_memory_channel[TurnTrace](ROOM)

    def tell(self, trace: TurnTrace) -> None:
        try:
            self._send.send_nowait(trace)
        except trio.WouldBlock:
            self._counters.count("traces_dropped", exporter=self._exporter.name)

    def finish(self) -> None:
        self._send.close()

    async def run(self) -> None:
        try:
            async for trace in self._receive:
                await self._exporter.take([trace, *self._waiting()])
        finally:
            left = self._receive.statistics().current_buffer_used
            self._receive.close()
            self._exporter.close()
            if left:
                logger.bind(exporter=self._exporter.name, turns=left).warning("traces were lost")

    def _waiting(self) -> list[TurnTrace]:
        waiting: list[TurnTrace] = []
        try:
            while len(waiting) < BATCH - 1:
                waiting.append(self._receive.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        return waiting
