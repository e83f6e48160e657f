"""One reply after the other, and a bounded queue in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.engines.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xiaozhi_trio.engines.admission import WorkerStatistics


class ReplyQueue:
    """Lets in one job at a time, in the order they came, while at most `length` wait."""

    def __init__(self, engine: str, *, length: int) -> None:
        self._admission = Admission(engine, places=1, queue=length)
        self._under_way: trio.CancelScope | None = None

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._admission.is_busy

    def statistics(self) -> WorkerStatistics:
        """The load at this moment."""
        return self._admission.statistics()

    async def run(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` when its turn has come.

        Raises `EngineError`: BUSY when the queue is full, UNAVAILABLE once closed, also
        where that ended the job, and whatever `job` raises.
        """
        self._admission.admit()
        asked = trio.current_time()
        async with self._admission.limiter:
            self._admission.waited(trio.current_time() - asked)
            if not self._admission.is_closed:
                with trio.CancelScope() as self._under_way:
                    await job()
                    return
        raise self._admission.refusal()

    async def aclose(self) -> None:
        """Refuse new jobs, end the one under way and wait until it has ended."""
        self._admission.close()
        if self._under_way is not None:
            self._under_way.cancel()
        # Its turn comes when the job has ended and those that waited were refused.
        async with self._admission.limiter:
            pass
