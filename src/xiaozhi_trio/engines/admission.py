"""Who may ask a model now: a bounded queue in front of its places."""

from __future__ import annotations

import attrs
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory


@attrs.frozen
class WorkerStatistics:
    """How busy a model is."""

    busy: int
    """Threads at work."""
    waiting: int
    """Callers in the queue."""
    last_wait: float
    """Seconds the latest job to start had waited for its thread."""
    longest_wait: float
    """Seconds the unluckiest job so far had waited."""


class Admission:
    """Places at one model, taken through `limiter`, and a bound on how many may wait for one."""

    def __init__(self, engine: str, *, places: int, queue: int) -> None:
        self._engine = engine
        self._queue = queue
        self._last_wait = 0.0
        self._longest_wait = 0.0
        self.limiter = trio.CapacityLimiter(places)
        self.is_closed = False

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self.limiter.available_tokens < 1

    def statistics(self) -> WorkerStatistics:
        """The load at this moment."""
        now = self.limiter.statistics()
        return WorkerStatistics(
            busy=now.borrowed_tokens,
            waiting=now.tasks_waiting,
            last_wait=self._last_wait,
            longest_wait=self._longest_wait,
        )

    def admit(self) -> None:
        """Raise `EngineError`: BUSY when the queue is full, UNAVAILABLE once closed."""
        if self.is_closed:
            raise self.refusal()
        waiting = self.limiter.statistics().tasks_waiting
        if self.is_busy and waiting >= self._queue:
            raise EngineError(
                f"{waiting} requests wait already, the most allowed (setting `queue`)",
                engine=self._engine,
                category=EngineErrorCategory.BUSY,
                retryable=True,
            )

    def waited(self, seconds: float) -> None:
        """Somebody had to wait so long for a place."""
        self._last_wait = seconds
        self._longest_wait = max(self._longest_wait, seconds)

    def close(self) -> None:
        """Let nobody in any more."""
        self.is_closed = True

    def refusal(self) -> EngineError:
        """What is told to who comes too late."""
        return EngineError(
            "is shut down", engine=self._engine, category=EngineErrorCategory.UNAVAILABLE
        )
