"""The threads one embedded model runs in, and the bounded queue in front of them.

A model is used by every session of the process. Each has its own
`ModelWorkers`: a capacity limiter (so that one model cannot take the threads of
another), a bound on how many may wait for it, and a way to tell a running job
that nobody waits for it any more.
"""

from __future__ import annotations

import math
import threading
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import outcome
import trio

from xiaozhi_trio.engines.admission import Admission
from xiaozhi_trio.engines.ahead import run_ahead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.admission import WorkerStatistics

T = TypeVar("T")


class Stop:
    """Tells a job in a thread that its result is no longer wanted.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._action: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """True once the result is no longer wanted."""
        return self._is_set

    def set(self) -> None:
        """Ask the job to end."""
        with self._lock:
            self._is_set = True
            action, self._action = self._action, None
        if action is not None:
            action()

    def on_set(self, action: Callable[[], None]) -> None:
        """Have `action` called once by `set`, or now if that was already called.

        For a library that can be interrupted by a flag of its own. `action` runs
        on the event loop's thread and must not block; a later one replaces it.
        """
        with self._lock:
            if not self._is_set:
                self._action = action
                return
        action()


class ModelWorkers:
    """Runs one model's blocking calls, at most `workers` at once and `queue` waiting."""

    def __init__(self, engine: str, *, workers: int, queue: int) -> None:
        self._admission = Admission(engine, places=workers, queue=queue)
        self._running: set[Stop] = set()

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._admission.is_busy

    def statistics(self) -> WorkerStatistics:
        """The load at this moment."""
        return self._admission.statistics()

    async def run(self, job: Callable[[Stop], T], *, abandon: bool = False) -> T:
        """Run `job` in a thread and give its result.

        On cancellation the job's `Stop` is set. By default this call then waits
        until the job has ended, so `job` must heed it within a fraction of a
        second. With `abandon` it returns at once and only the thread is kept
        until the job ends: for libraries that cannot be interrupted.

        Raises `EngineError`: BUSY when the queue is full, UNAVAILABLE once closed,
        and whatever `job` raises.
        """
        self._admission.admit()
        stop = Stop()
        asked = perf_counter()

        def in_thread() -> outcome.Outcome[T]:
            self._admission.waited(perf_counter() - asked)
            if self._admission.is_closed:
                return outcome.Error(self._admission.refusal())
            return outcome.capture(job, stop)

        self._running.add(stop)
        try:
            # The outcome is carried out of the nursery unopened: a nursery would
            # wrap the job's error into an exception group.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_set_when_cancelled, stop)
                result = await trio.to_thread.run_sync(
                    in_thread, abandon_on_cancel=abandon, limiter=self._admission.limiter
                )
                nursery.cancel_scope.cancel()
        finally:
            self._running.discard(stop)
        return result.unwrap()

    def stream(
        self, job: Callable[[Stop, Callable[[T], None]], None], *, room: int
    ) -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Run `job` in a thread and give what it emits.

        `job` may emit at most `room` items. All of them have a place from the start,
        so that a slow reader never holds the model. Leaving the block ends the job
        first. Errors as in `run`, raised by the iterator.
        """

        async def produce(send: trio.MemorySendChannel[T]) -> None:
            def emit(item: T) -> None:
                trio.from_thread.run_sync(send.send_nowait, item)

            await self.run(lambda stop: job(stop, emit))

        return run_ahead(produce, room=room)

    async def aclose(self) -> None:
        """Refuse new jobs, ask running ones to end and wait until all threads are free."""
        self._admission.close()
        for stop in self._running:
            stop.set()
        # Holding every place, for good, means that no thread is left inside the model.
        limiter = self._admission.limiter
        for _ in range(math.ceil(limiter.total_tokens)):
            await limiter.acquire_on_behalf_of(object())


async def _set_when_cancelled(stop: Stop) -> None:
    # Also set when the job has ended by itself, where nobody looks at it any more.
    try:
        await trio.sleep_forever()
    finally:
        stop.set()
