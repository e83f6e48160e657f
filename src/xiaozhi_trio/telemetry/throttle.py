"""Keeping a repeated line out of the log without losing how often it would have been there."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD_SECONDS: Final = 60.0
_CAPACITY: Final = 4096

K = TypeVar("K", bound=Hashable)


@attrs.define
class _Repeated:
    since: float
    left_out: int = 0


class Throttle(Generic[K]):
    """Lets the first line of each key through in every period, and counts the others.

    The keys heard of least recently are forgotten where there are more than `capacity`,
    with what was left out of theirs.
    """

    def __init__(
        self,
        *,
        period: float = PERIOD_SECONDS,
        capacity: int = _CAPACITY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`period` is in seconds of the `clock`."""
        self._period = period
        self._capacity = capacity
        self._clock = clock
        self._keys: OrderedDict[K, _Repeated] = OrderedDict()

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._keys)

    def admit(self, key: K) -> int | None:
        """How many lines were left out since the last one; None where this one is left out too."""
        now = self._clock()
        known = self._keys.get(key)
        if known is not None:
            self._keys.move_to_end(key)
            if now - known.since < self._period:
                known.left_out += 1
                return None
        self._keys[key] = _Repeated(now)
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)
        return 0 if known is None else known.left_out

    def overdue(self) -> Iterator[tuple[K, int]]:
        """Each key whose period is over, with the lines left out of it, if any.

        Telling of them is that key's line of the next period. Keys without any are
        forgotten.
        """
        now = self._clock()
        for key, known in list(self._keys.items()):
            if now - known.since < self._period:
                continue
            if known.left_out:
                self._keys[key] = _Repeated(now)
                yield key, known.left_out
            else:
                del self._keys[key]
