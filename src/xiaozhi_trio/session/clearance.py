"""What a turn may do to the world, and when.

A reply that was interrupted may go on, or may be over: until that is known nothing is
switched on for it, whatever the language model has asked for.
"""

from __future__ import annotations

import trio


class Clearance:
    """Leave to act: granted when the turn speaks up, withheld while it is suspended."""

    def __init__(self) -> None:
        self._granted = trio.Event()

    def grant(self) -> None:
        """Act from now on."""
        self._granted.set()

    def withhold(self) -> None:
        """Begin nothing until the next `grant`; what has begun goes on."""
        if self._granted.is_set():
            self._granted = trio.Event()

    async def wait(self) -> None:
        """Wait until there is leave, and there still is when this returns."""
        await trio.lowlevel.checkpoint()
        while not self._granted.is_set():
            await self._granted.wait()
