"""No silence is the end: whoever speaks says so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.session.end_of_turn.strategy import Pause


class Manual:
    """Waits for `listen stop`, or for the longest utterance."""

    def __init__(self, settings: ListeningSettings) -> None:
        """`settings` has nothing to say here."""

    async def silence_ms(self, pause: Pause) -> float:  # noqa: ARG002  any pause is like another
        """See `EndOfTurn`."""
        await trio.lowlevel.checkpoint()
        return math.inf
