"""Making the items of a stream in a task of its own, ahead of their reader."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import outcome
import trio

from xiaozhi_trio.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

T = TypeVar("T")


@asynccontextmanager
async def run_ahead(
    produce: Callable[[trio.MemorySendChannel[T]], Awaitable[None]], *, room: int
) -> AsyncIterator[AsyncIterator[T]]:
    """What `produce` sends, with at most `room` items waiting for their reader.

    Leaving the block cancels `produce` and waits for its end. Its `EngineError` comes
    out of the iterator, after the items sent before it; errors of the block itself
    pass as they are.
    """
    async with _outcomes(produce, room) as outcomes:
        yield _Opened(outcomes)


@trio.as_safe_channel
async def _outcomes(
    produce: Callable[[trio.MemorySendChannel[T]], Awaitable[None]], room: int
) -> AsyncGenerator[outcome.Maybe[T]]:
    send, receive = trio.open_memory_channel[T](room)
    failure: EngineError | None = None

    async def run() -> None:
        nonlocal failure
        with send:
            try:
                await produce(send)
            except EngineError as error:
                failure = error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        with receive:
            async for item in receive:
                yield outcome.Value(item)
    if failure is not None:
        # Handed over as an item: raised here it would overtake the end of the
        # channel only sometimes, and a reader could take the failure for success.
        yield outcome.Error(failure)


class _Opened(Generic[T]):
    def __init__(self, outcomes: trio.abc.ReceiveChannel[outcome.Maybe[T]]) -> None:
        self._outcomes = outcomes

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return (await anext(self._outcomes)).unwrap()
