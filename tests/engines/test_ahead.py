from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from xiaozhi_trio.engines.ahead import run_ahead
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from trio import MemorySendChannel


async def test_items_come_in_order() -> None:
    async def produce(send: MemorySendChannel[int]) -> None:
        for number in range(3):
            await send.send(number)

    async with run_ahead(produce, room=0) as numbers:
        assert [number async for number in numbers] == [0, 1, 2]


@pytest.mark.parametrize("room", [0, 2])
async def test_no_more_than_room_is_made_ahead(room: int) -> None:
    made: list[int] = []

    async def produce(send: MemorySendChannel[int]) -> None:
        for number in range(10):
            made.append(number)
            await send.send(number)

    async with run_ahead(produce, room=room) as numbers:
        assert await anext(numbers) == 0
        await trio.testing.wait_all_tasks_blocked()
        # One given, one waiting to be sent.
        assert len(made) == 2 + room


async def test_failure_comes_after_the_items_before_it() -> None:
    async def produce(send: MemorySendChannel[int]) -> None:
        await send.send(1)
        raise EngineError("no", engine="test", category=EngineErrorCategory.INTERNAL)

    async with run_ahead(produce, room=1) as numbers:
        assert await anext(numbers) == 1
        with pytest.raises(EngineError, match="test: no"):
            await anext(numbers)


async def test_failure_leaves_the_block_unwrapped() -> None:
    async def produce(send: MemorySendChannel[int]) -> None:
        raise EngineError("no", engine="test", category=EngineErrorCategory.INTERNAL)

    async def read() -> list[int]:
        async with run_ahead(produce, room=1) as numbers:
            return [number async for number in numbers]

    with pytest.raises(EngineError, match="test: no"):
        await read()


async def test_leaving_the_block_cancels_the_producer() -> None:
    cancelled = False

    async def produce(send: MemorySendChannel[int]) -> None:
        nonlocal cancelled
        await send.send(1)
        try:
            await trio.sleep_forever()
        finally:
            cancelled = True

    async with run_ahead(produce, room=1) as numbers:
        async for _ in numbers:
            break
    assert cancelled


async def test_cancellation_from_outside() -> None:
    async def produce(send: MemorySendChannel[int]) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0) as scope:
        async with run_ahead(produce, room=1) as numbers:
            await anext(numbers)
    assert scope.cancelled_caught
