"""When a channel on which nothing happens is closed."""

from __future__ import annotations

import trio


class IdleClock:
    """Moves the deadline of a session's scope.

    A device that has heard nothing for 120 s takes its channel for broken (firmware
    `Protocol::IsTimeout`) and stumbles over it at its next wake word, so an idle
    channel is closed before that.
    """

    def __init__(self, scope: trio.CancelScope, seconds: float) -> None:
        self._scope = scope
        self._seconds = seconds

    def restart(self) -> None:
        """Somebody was heard or spoken to: count from now."""
        self._scope.deadline = trio.current_time() + self._seconds

    def hold(self) -> None:
        """A turn is in progress, which has deadlines of its own: do not count."""
        self._scope.deadline = float("inf")
