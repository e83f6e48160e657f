from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.engines.edge import EngineBlock, EngineBug, engine_edge
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def test_a_bug_becomes_an_error_of_the_engine() -> None:
    cause = KeyError("x" * 1000)
    with pytest.raises(EngineBug) as caught, engine_edge("parrot", "loading"):
        raise cause
    error = caught.value
    assert (error.engine, error.category, error.retryable) == (
        "parrot",
        EngineErrorCategory.INTERNAL,
        False,
    )
    assert str(error).startswith("parrot: loading raised KeyError('xxx")
    assert len(str(error)) < 300
    assert error.__cause__ is cause


async def test_errors_of_a_nursery_are_a_bug_too() -> None:
    async def fail() -> None:
        raise ValueError("in a task")

    with pytest.raises(EngineBug, match="in a task"), engine_edge("parrot", "answering"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)


async def test_errors_of_engines_pass_as_they_are() -> None:
    error = EngineError("no", engine="other", category=EngineErrorCategory.BUSY)
    with pytest.raises(EngineError) as caught, engine_edge("parrot", "answering"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_process_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), engine_edge("parrot", "loading"):
        raise error


async def test_cancellation_passes() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with engine_edge("parrot", "answering"):
            await trio.sleep(1)
    assert scope.cancelled_caught


async def test_a_bug_beside_a_cancellation_is_a_bug(autojump_clock) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in a task")

    async def answer() -> None:
        with engine_edge("parrot", "answering"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(1), pytest.raises(EngineBug, match="in a task"):
        await answer()


def test_what_ends_the_process_passes_beside_a_bug() -> None:
    group = BaseExceptionGroup("both", [ValueError("a bug"), KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught, engine_edge("parrot", "loading"):
        raise group
    assert caught.value is group


@asynccontextmanager
async def whole() -> AsyncIterator[str]:
    yield "hello"


@asynccontextmanager
async def fails_to_close() -> AsyncIterator[str]:
    try:
        yield "hello"
    finally:
        raise ValueError("cannot close")


@asynccontextmanager
async def closes_with_its_own_error() -> AsyncIterator[str]:
    yield "hello"
    raise EngineError("lost", engine="parrot", category=EngineErrorCategory.CONNECTIVITY)


@asynccontextmanager
async def in_a_nursery() -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield "hello"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def in_a_nursery_that_fails_to_close() -> AsyncIterator[str]:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cannot close")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await trio.lowlevel.checkpoint()
        yield "hello"
        nursery.cancel_scope.cancel()


class DropsErrors:
    """What an engine of somebody else may do."""

    async def __aenter__(self) -> str:
        return "hello"

    async def __aexit__(self, *_: object) -> bool:
        return True


@asynccontextmanager
async def does_not_open() -> AsyncIterator[str]:
    raise ValueError("cannot open")
    yield "never"


async def left(manager, error: BaseException | None = None) -> None:
    async with EngineBlock("parrot", manager, step="the request") as word:
        assert word == "hello"
        if error is not None:
            raise error


async def test_a_block_that_works_is_left_without_a_word() -> None:
    await left(whole)
    await left(in_a_nursery)


@pytest.mark.parametrize(
    ("manager", "told"),
    [
        (does_not_open, "the request raised ValueError('cannot open')"),
        (lambda: None, "the request raised AttributeError"),
        (fails_to_close, "closing raised ValueError('cannot close')"),
        (in_a_nursery_that_fails_to_close, "closing raised ExceptionGroup"),
    ],
)
async def test_a_block_that_fails_is_a_bug_of_the_engine(manager, told: str) -> None:
    with pytest.raises(EngineBug) as caught:
        await left(manager)
    assert str(caught.value).startswith(f"parrot: {told}")
    assert caught.value.__cause__ is not None


async def test_an_error_of_the_engine_at_the_end_passes_as_it_is() -> None:
    with pytest.raises(EngineError, match="lost") as caught:
        await left(closes_with_its_own_error)
    assert not isinstance(caught.value, EngineBug)


@pytest.mark.parametrize("manager", [whole, in_a_nursery, closes_with_its_own_error])
async def test_an_error_of_the_block_passes_as_it_is(manager) -> None:
    error = trio.BrokenResourceError()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await left(manager, error)
    assert caught.value is error


@pytest.mark.parametrize("manager", [fails_to_close, in_a_nursery_that_fails_to_close, DropsErrors])
async def test_a_bug_while_an_error_passes_is_told(manager) -> None:
    with pytest.raises(EngineBug):
        await left(manager, trio.BrokenResourceError())


@pytest.mark.parametrize("manager", [whole, in_a_nursery, DropsErrors])
async def test_a_cancellation_passes_through_the_block(manager) -> None:
    with trio.CancelScope() as scope:
        async with EngineBlock("parrot", manager, step="the request"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("manager", [fails_to_close, in_a_nursery_that_fails_to_close])
async def test_a_bug_at_a_cancellation_is_an_error_of_the_engine(autojump_clock, manager) -> None:
    async def stay() -> None:
        async with EngineBlock("parrot", manager, step="the request"):
            await trio.sleep_forever()

    with trio.move_on_after(1), pytest.raises(EngineBug, match="cannot close"):
        await stay()


async def test_an_engine_that_ends_its_block_by_a_deadline_of_its_own_has_a_bug(
    autojump_clock,
) -> None:
    @asynccontextmanager
    async def impatient() -> AsyncIterator[str]:
        with trio.move_on_after(1):
            yield "hello"

    with pytest.raises(EngineBug, match="closing dropped Cancelled"):
        async with EngineBlock("parrot", impatient, step="the request"):
            await trio.sleep_forever()
