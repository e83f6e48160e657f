"""Python's garbage collector, kept from stopping every conversation at once.

A full collection walks all objects that live, with everything else at a halt: 80 ms
after a start, 200 to 600 ms while 2,000 devices connect (docs/performance.md). What
ends in a server is freed by reference counts; cycles are few and may wait.
"""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 10_000
"""New objects between two collections of the youngest."""
_MIDDLE: Final = 10
_FULL: Final = 1_000
"""Collections of the middle ones between two full ones: 100 million new objects."""


def calm_collector() -> None:
    """Leave what lives now out of all collections and make full ones rare.

    For a process that does nothing but serve, when all is imported and little is under way.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _FULL)
