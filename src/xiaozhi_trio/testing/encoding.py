"""Opus encoding without threads, for tests on a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


async def encode_inline(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call the function where we are: a virtual clock would jump over a thread."""
    await trio.lowlevel.checkpoint()
    return function(*args)
