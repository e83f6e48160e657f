"""How embedded engines reach the libraries and files they stand on.

Everything here turns a foreign failure into an `EngineError` that says what to do.
"""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the libraries were seen to raise, or raise by their source, on odd input or files."""

# catch_warnings swaps a list that all threads share, and engines load at the same
# time: without the lock one could put back the filters of another.
_import_lock = threading.RLock()


@contextmanager
def optional_packages(engine: str) -> Iterator[None]:
    """Around the imports of an engine's libraries, in a thread: their warnings are theirs.

    Raises `EngineError` where one is not installed.
    """
    with _import_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise EngineError(
                f"{error.name or error} cannot be imported; embedded engines need "
                'pip install "xiaozhi-trio[embedded]"',
                engine=engine,
                category=EngineErrorCategory.UNAVAILABLE,
            ) from error


@contextmanager
def library_errors(
    engine: str, doing: str, *more: type[Exception], bad_input: bool = False
) -> Iterator[None]:
    """Turn `LIBRARY_ERRORS`, and `more`, into `EngineError`.

    With `bad_input` the blame goes to what was given to the engine, not to the engine.
    """
    category = EngineErrorCategory.BAD_REQUEST if bad_input else EngineErrorCategory.INTERNAL
    errors: tuple[type[Exception], ...] = (*LIBRARY_ERRORS, *more)
    try:
        yield
    except errors as error:
        raise EngineError(
            f"{doing} failed: {type(error).__name__}: {error}", engine=engine, category=category
        ) from error


def only_file(folder: Path, pattern: str, engine: str) -> Path:
    """The one file in `folder` that fits `pattern`; anything else is an `EngineError`."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise EngineError(
            f"expected one {pattern} in {folder}, found {len(found)}; "
            "delete the folder and fetch the model again",
            engine=engine,
            category=EngineErrorCategory.UNAVAILABLE,
        )
    return found[0]


def threads_or_cores(threads: int) -> int:
    """`threads`, where 0 stands for one per core that this process may use."""
    if threads > 0:
        return threads
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
