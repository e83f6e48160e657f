from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.worker import ModelWorkers, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 5
"""Seconds after which a thread that should have ended is taken to hang."""


class Job:
    """A job that runs until it is released or stopped."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.release = threading.Event()
        self.was_stopped = False
        self.ended = threading.Event()

    def __call__(self, stop: Stop) -> str:
        self.running.set()
        stop.on_set(self.release.set)
        assert self.release.wait(PATIENCE)
        self.was_stopped = stop.is_set
        self.ended.set()
        return "done"

    async def started(self) -> None:
        assert await trio.to_thread.run_sync(self.running.wait, PATIENCE)


@pytest.fixture
def workers() -> ModelWorkers:
    return ModelWorkers("test", workers=1, queue=1)


def test_stop_calls_the_action_once() -> None:
    calls: list[int] = []
    stop = Stop()
    stop.on_set(lambda: calls.append(1))
    assert not stop.is_set
    stop.set()
    stop.set()
    assert stop.is_set
    assert calls == [1]


def test_stop_calls_a_late_action_at_once() -> None:
    calls: list[int] = []
    stop = Stop()
    stop.set()
    stop.on_set(lambda: calls.append(1))
    assert calls == [1]


async def test_result_and_error_come_through(workers: ModelWorkers) -> None:
    def fail(_: Stop) -> None:
        raise EngineError("no", engine="test", category=EngineErrorCategory.INTERNAL)

    assert await workers.run(lambda _: 7) == 7
    with pytest.raises(EngineError, match="test: no"):
        await workers.run(fail)
    assert await workers.run(lambda _: 8) == 8


async def test_full_queue_is_busy_and_retryable(workers: ModelWorkers) -> None:
    first = Job()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, first)
        await first.started()
        nursery.start_soon(workers.run, lambda _: None)
        assert workers.is_busy
        await trio.testing.wait_all_tasks_blocked()
        assert (workers.statistics().busy, workers.statistics().waiting) == (1, 1)
        with pytest.raises(EngineError, match="1 requests wait already") as caught:
            await workers.run(lambda _: None)
        assert caught.value.category is EngineErrorCategory.BUSY
        assert caught.value.retryable
        first.release.set()
    assert workers.statistics().longest_wait > 0
    assert not workers.is_busy
    assert await workers.run(lambda _: 1) == 1


async def test_cancellation_stops_the_job_and_waits_for_its_end(workers: ModelWorkers) -> None:
    job = Job()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, job)
        await job.started()
        nursery.cancel_scope.cancel()
    assert job.ended.is_set()
    assert job.was_stopped
    assert workers.statistics().busy == 0


async def test_cancellation_in_the_queue_starts_nothing(workers: ModelWorkers) -> None:
    first, second = Job(), Job()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, first)
        await first.started()
        with trio.CancelScope() as waiting:
            nursery.start_soon(_cancel_when_blocked, waiting)
            await workers.run(second)
        first.release.set()
    assert not second.running.is_set()


async def test_abandoned_job_keeps_only_its_thread(workers: ModelWorkers) -> None:
    release = threading.Event()

    def deaf(_: Stop) -> None:
        release.wait(PATIENCE)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_blocked, scope)
            await workers.run(deaf, abandon=True)
        assert scope.cancelled_caught
        assert workers.statistics().busy == 1
        release.set()
        assert await workers.run(lambda _: "free again") == "free again"


async def test_stream_gives_all_without_waiting_for_its_reader(workers: ModelWorkers) -> None:
    ended = threading.Event()

    def count(_: Stop, emit: Callable[[int], None]) -> None:
        for number in range(100):
            emit(number)
        ended.set()

    async with workers.stream(count, room=100) as numbers:
        assert await anext(numbers) == 0
        assert await trio.to_thread.run_sync(ended.wait, PATIENCE)
        assert [number async for number in numbers] == list(range(1, 100))


async def test_leaving_the_stream_ends_its_job_first(workers: ModelWorkers) -> None:
    job = Job()

    def endless(stop: Stop, emit: Callable[[int], None]) -> None:
        emit(1)
        job(stop)

    async with workers.stream(endless, room=1) as numbers:
        async for _ in numbers:
            break
    assert job.was_stopped


async def test_error_leaves_the_stream_unwrapped(workers: ModelWorkers) -> None:
    def fail(_: Stop, emit: Callable[[int], None]) -> None:
        emit(1)
        raise EngineError("no", engine="test", category=EngineErrorCategory.INTERNAL)

    async def read() -> None:
        async with workers.stream(fail, room=1) as numbers:
            assert await anext(numbers) == 1
            await anext(numbers)

    with pytest.raises(EngineError, match="test: no"):
        await read()


async def test_error_of_the_reader_leaves_the_stream_unwrapped(workers: ModelWorkers) -> None:
    job = Job()

    def endless(stop: Stop, emit: Callable[[int], None]) -> None:
        emit(1)
        job(stop)

    async def read() -> None:
        async with workers.stream(endless, room=1) as numbers:
            async for _ in numbers:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert job.was_stopped


async def test_close_stops_what_runs_and_refuses_the_rest(workers: ModelWorkers) -> None:
    running = Job()
    refused: list[EngineError] = []

    async def waits() -> None:
        try:
            await workers.run(lambda _: None)
        except EngineError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, running)
        await running.started()
        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        await workers.aclose()
    assert running.was_stopped
    assert [error.category for error in refused] == [EngineErrorCategory.UNAVAILABLE]
    with pytest.raises(EngineError, match="is shut down"):
        await workers.run(lambda _: None)


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    scope.cancel()
