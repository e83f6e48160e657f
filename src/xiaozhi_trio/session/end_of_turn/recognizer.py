"""The recogniser decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.session.end_of_turn.strategy import Pause


class RecognizerDecides:
    """At once where a streaming recogniser takes the pause for the end."""

    def __init__(self, settings: ListeningSettings) -> None:
        self._settings = settings

    async def silence_ms(self, pause: Pause) -> float:
        """See `EndOfTurn`."""
        await trio.lowlevel.checkpoint()
        return 0.0 if pause.says_ended else self._settings.end_silence_ms
