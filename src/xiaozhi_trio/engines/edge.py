"""Where an engine's code ends and ours begins.

Engines come from anybody. By contract they raise `EngineError`; whatever else one
raises is a bug of that engine and must neither end the process, which loads it, nor
the connection that happened to ask. So it becomes an `EngineError` here, at the one
place where it leaves the engine, and is told with its traceback.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    except Exception as error:
        raise EngineBug(
            f"{step} raised {repr(error)[:_LONGEST_SHOWN]}, which is a bug of this engine",
            engine=engine,
            category=EngineErrorCategory.INTERNAL,
        ) from error
