"""What a process holds at one moment: all that must be back where it was after a soak."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Final

import attrs
import trio

_WATCHED: Final = (
    *("trio_websocket.", "wsproto."),
    *("xiaozhi_trio.wire.", "xiaozhi_trio.audio.", "xiaozhi_trio.engines."),
    *("xiaozhi_trio.tools.", "xiaozhi_trio.session.", "xiaozhi_trio.gateway."),
)
"""What no connection may leave anything of; counters and traces remember on purpose."""
_STATM: Final = Path("/proc/self/statm")


@attrs.frozen
class Census:
    tasks: int
    threads: int
    files: int
    """Open file descriptors."""
    objects: dict[str, int]
    """Objects of each class that lives as long as a connection, or shorter."""
    blocks: int
    """Pieces of memory of the interpreter."""
    resident_bytes: int
    """0 where the system does not tell."""


def census() -> Census:
    """Of this process, after a full collection."""
    # What a finaliser lets go of may be garbage itself.
    for _ in range(3):
        gc.collect()
    kinds = Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in map(type, gc.get_objects())
        if str(kind.__module__).startswith(_WATCHED)
    )
    resident = 0
    if _STATM.exists():
        resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Census(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        threads=threading.active_count(),
        files=sum(1 for _ in Path("/dev/fd").iterdir()),
        objects=dict(kinds),
        blocks=sys.getallocatedblocks(),
        resident_bytes=resident,
    )
