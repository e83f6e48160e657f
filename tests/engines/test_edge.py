from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.engines.edge import EngineBug, engine_edge
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory


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
