from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm.reply_queue import ReplyQueue

if TYPE_CHECKING:
    from trio.testing import MockClock


class Jobs:
    """Runs jobs of ten seconds and notes when they began."""

    def __init__(self, queue: ReplyQueue) -> None:
        self.queue = queue
        self.began: list[tuple[str, float]] = []
        self.failed: list[EngineErrorCategory] = []

    async def run(self, name: str) -> None:
        async def job() -> None:
            self.began.append((name, trio.current_time() - start))
            await trio.sleep(10)

        start = trio.current_time()
        try:
            await self.queue.run(job)
        except EngineError as error:
            self.failed.append(error.category)


async def test_one_after_the_other_in_order(autojump_clock: MockClock) -> None:
    jobs = Jobs(ReplyQueue("test", length=2))
    assert not jobs.queue.is_busy
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(jobs.run, name)
            await trio.testing.wait_all_tasks_blocked()
            assert jobs.queue.is_busy
        statistics = jobs.queue.statistics()
        assert (statistics.busy, statistics.waiting) == (1, 2)
        await jobs.run("d")
    assert jobs.began == [("a", 0), ("b", 10), ("c", 20)]
    assert jobs.failed == [EngineErrorCategory.BUSY]
    statistics = jobs.queue.statistics()
    assert (statistics.busy, statistics.waiting) == (0, 0)
    assert not jobs.queue.is_busy
    assert (statistics.last_wait, statistics.longest_wait) == (20, 20)


async def test_cancelled_job_makes_room(autojump_clock: MockClock) -> None:
    jobs = Jobs(ReplyQueue("test", length=1))
    with trio.move_on_after(3) as scope:
        await jobs.run("a")
    assert scope.cancelled_caught
    await jobs.run("b")
    assert jobs.began == [("a", 0), ("b", 0)]
    assert jobs.queue.statistics().last_wait == 0


async def test_error_of_a_job_passes(autojump_clock: MockClock) -> None:
    async def job() -> None:
        raise ValueError("mine")

    queue = ReplyQueue("test", length=1)
    with pytest.raises(ValueError, match="mine"):
        await queue.run(job)
    assert queue.statistics().busy == 0


async def test_closing_ends_the_job_under_way_and_refuses_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    jobs = Jobs(ReplyQueue("test", length=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.run, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(jobs.run, "b")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await jobs.queue.aclose()
        assert trio.current_time() == began
    await jobs.run("c")
    assert jobs.began == [("a", 0)]
    assert jobs.failed == [EngineErrorCategory.UNAVAILABLE] * 3
