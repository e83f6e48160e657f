"""When a channel on which nothing happens is closed."""

from __future__ import annotations

import math

import trio


class IdleClock:
    """Counts how long nobody was heard or spoken to.

    A device that has heard nothing for 120 s takes its channel for broken (firmware
    `Protocol::IsTimeout`) and stumbles over it at its next wake word, so an idle
    channel is closed before that.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = math.inf
        self._waiting = trio.CancelScope()

    def restart(self) -> None:
        """Somebody was heard or spoken to: count from now."""
        self._deadline = trio.current_time() + self._seconds
        self._waiting.deadline = self._deadline

    def hold(self) -> None:
        """A turn is in progress, which has deadlines of its own: do not count."""
        self._deadline = self._waiting.deadline = math.inf

    async def expired(self) -> None:
        """Wait until the time is over. For one task."""
        with trio.CancelScope(deadline=self._deadline) as self._waiting:
            await trio.sleep_forever()
