"""One reply after the other, and a bounded queue in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.worker import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class ReplyQueue:
    """Lets in one job at a time, in the order they came, while at most `length` wait."""

    def __init__(self, engine: str, *, length: int) -> None:
        self._engine = engine
        self._length = length
        self._limiter = trio.CapacityLimiter(1)
        self._under_way: trio.CancelScope | None = None
        self._closed = False
        self._last_wait = 0.0
        self._longest_wait = 0.0

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._limiter.available_tokens < 1

    def statistics(self) -> WorkerStatistics:
        """The load at this moment."""
        now = self._limiter.statistics()
        return WorkerStatistics(
            busy=now.borrowed_tokens,
            waiting=now.tasks_waiting,
            last_wait=self._last_wait,
            longest_wait=self._longest_wait,
        )

    async def run(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` when its turn has come.

        Raises `EngineError`: BUSY when the queue is full, UNAVAILABLE once closed, also
        where that ended the job, and whatever `job` raises.
        """
        self._admit()
        asked = trio.current_time()
        async with self._limiter:
            self._note_wait(trio.current_time() - asked)
            if not self._closed:
                with trio.CancelScope() as self._under_way:
                    await job()
                    return
        raise self._shut_down()

    async def aclose(self) -> None:
        """Refuse new jobs, end the one under way and wait until it has ended."""
        self._closed = True
        if self._under_way is not None:
            self._under_way.cancel()
        # Its turn comes when the job has ended and those that waited were refused.
        async with self._limiter:
            pass

    def _admit(self) -> None:
        if self._closed:
            raise self._shut_down()
        waiting = self._limiter.statistics().tasks_waiting
        if self._limiter.available_tokens < 1 and waiting >= self._length:
            raise EngineError(
                f"{waiting} requests wait already, the most allowed (setting `queue`)",
                engine=self._engine,
                category=EngineErrorCategory.BUSY,
                retryable=True,
            )

    def _note_wait(self, seconds: float) -> None:
        self._last_wait = seconds
        self._longest_wait = max(self._longest_wait, seconds)

    def _shut_down(self) -> EngineError:
        return EngineError(
            "is shut down", engine=self._engine, category=EngineErrorCategory.UNAVAILABLE
        )
