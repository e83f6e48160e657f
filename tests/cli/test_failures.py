from __future__ import annotations

import click
import pytest
import trio

from xiaozhi_trio.cli.failures import CommandFailed, leaves, run
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

BUSY = EngineError("no model", engine="whisper", category=EngineErrorCategory.BUSY)


async def fail(*errors: BaseException) -> None:
    """Raise errors the way tasks of a nursery do: all of them, in a group."""

    async def fail_with(error: BaseException) -> None:
        raise error

    async with trio.open_nursery() as nursery:
        for error in errors:
            nursery.start_soon(fail_with, error)


def test_the_outcome_is_given() -> None:
    async def add(one: int, other: int) -> int:
        return one + other

    assert run(add, 1, 2) == 3


@pytest.mark.parametrize("errors", [(KeyboardInterrupt(),), (KeyboardInterrupt(), ValueError())])
def test_ctrl_c_is_no_traceback(errors: tuple[BaseException, ...]) -> None:
    with pytest.raises(click.Abort):
        run(fail, *errors)


def test_a_bare_ctrl_c_is_no_traceback() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(click.Abort):
        run(interrupted)


def test_a_failure_is_taken_out_of_its_group() -> None:
    with pytest.raises(CommandFailed, match="this way"):
        run(fail, CommandFailed("this way"))


def test_engine_errors_are_the_users_to_read() -> None:
    async def fail_bare() -> None:
        raise BUSY

    with pytest.raises(CommandFailed) as bare:
        run(fail_bare)
    assert bare.value.message == "whisper: no model (busy)"
    with pytest.raises(CommandFailed) as grouped:
        run(fail, BUSY, BUSY)
    assert grouped.value.message == "whisper: no model (busy)\nwhisper: no model (busy)"


def test_a_bug_stays_a_bug() -> None:
    with pytest.RaisesGroup(ValueError):
        run(fail, ValueError())
    with pytest.RaisesGroup(ValueError, EngineError):
        run(fail, ValueError(), BUSY)


def test_leaves_of_nested_groups() -> None:
    first, second = ValueError(), KeyError()
    group = ExceptionGroup("", [first, ExceptionGroup("", [second])])
    assert list(leaves(group)) == [first, second]
    assert list(leaves(first)) == [first]
