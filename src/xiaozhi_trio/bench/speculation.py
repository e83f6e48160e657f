"""How many answers a server prepared, and how many of them in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from xiaozhi_trio.telemetry.turn_trace import TurnTrace


@attrs.define
class Speculation:
    """Of the turns that were over up to now."""

    turns: int = 0
    """Those that were spoken."""
    begun: int = 0
    """Answers prepared before the end of the speech was certain."""
    discarded: int = 0
    """Those of them that came to nothing, for the user went on speaking."""
    wasted_ms: float = 0.0
    """What engines took for the discarded ones, and for early recognitions in vain."""

    def note(self, trace: TurnTrace) -> None:
        """Add a turn that is over."""
        if trace.occasion != "spoken":
            return
        self.turns += 1
        self.begun += sum(attempt.speculative for attempt in trace.attempts)
        discarded = {a.number for a in trace.attempts if a.discarded_at is not None}
        self.discarded += len(discarded)
        self.wasted_ms += trace.wasted_seconds * 1000
