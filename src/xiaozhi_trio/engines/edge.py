"""Where an engine's code ends and ours begins.

Engines come from anybody. By contract they raise `EngineError`; whatever else one
raises is a bug of that engine and must neither end the process, which loads it, nor
the connection that happened to ask. So it becomes an `EngineError` here, at the one
place where it leaves the engine, and is told with its traceback.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")

_LONGEST_SHOWN: Final = 200
"""Characters of a foreign error that are repeated."""


class EngineBug(EngineError):
    """An engine raised something else than `EngineError`, which is its `__cause__`."""


@contextmanager
def engine_edge(engine: str, step: str) -> Iterator[None]:
    """Turn errors that are no `EngineError` into `EngineBug`; `step` is what the engine does.

    Only the engine's own code belongs in the block. Cancellation passes.
    """
    try:
        yield
    except EngineError:
        raise
    except (Exception, BaseExceptionGroup) as error:
        if (bug := _bug_in(error)) is None:
            raise
        raise _told(engine, f"{step} raised", bug) from error


class EngineBlock(Generic[T]):
    """An engine's context manager, entered and left at the engine's edge.

    What the engine raises there is an `EngineError`. Errors of the block itself pass as
    they are, also where a nursery of the engine wraps them or the engine drops them.
    """

    def __init__(
        self, engine: str, request: Callable[[], AbstractAsyncContextManager[T]], *, step: str
    ) -> None:
        """`request` makes the context manager; `step` is what it is entered for."""
        self._engine = engine
        self._request = request
        self._step = step

    async def __aenter__(self) -> T:
        with engine_edge(self._engine, self._step):
            self._manager = self._request()
            return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            is_dropped = await self._manager.__aexit__(kind, error, traceback)
        except EngineError:
            raise
        except (Exception, BaseExceptionGroup) as raised:
            if (bug := _bug_in(raised, block=error)) is not None:
                raise _told(self._engine, "closing raised", bug) from raised
            if error is None:
                raise
            # Else it is the block's own, and goes on as it was raised.
            return
        if is_dropped and error is not None:
            # Somebody else's cancellation must not get lost in an engine.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise _told(self._engine, "closing dropped", error) from error


def _told(engine: str, deed: str, error: BaseException) -> EngineBug:
    return EngineBug(
        f"{deed} {repr(error)[:_LONGEST_SHOWN]}, which is a bug of this engine",
        engine=engine,
        category=EngineErrorCategory.INTERNAL,
    )


def _bug_in(error: BaseException, *, block: BaseException | None = None) -> BaseException | None:
    """What is in it beside cancellation and the `block`'s own error; None for nothing.

    Nurseries of an engine wrap what comes through them, so a group may hold all of these.
    To end the process goes before telling a bug; a cancellation comes again.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, Exception) and error is not block else None
    _, others = error.split(lambda part: part is block)
    if others is None:
        return None
    bugs, others = others.split(Exception)
    ends_process = others is not None and others.split(trio.Cancelled)[1] is not None
    return None if ends_process else bugs
