"""Short after a complete sentence, long after words that want to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.session.completeness import Completeness, completeness

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.session.end_of_turn.strategy import Pause


class Punctuation:
    """Judges by the words, and by the punctuation that the recogniser heard."""

    def __init__(self, settings: ListeningSettings) -> None:
        self._settings = settings

    async def silence_ms(self, pause: Pause) -> float:
        """See `EndOfTurn`."""
        await trio.lowlevel.checkpoint()
        settings = self._settings
        match completeness(pause.transcript):
            case Completeness.COMPLETE:
                return min(settings.complete_silence_ms, settings.end_silence_ms)
            case Completeness.OPEN:
                return max(settings.open_silence_ms, settings.end_silence_ms)
            case Completeness.UNKNOWN:
                return settings.end_silence_ms
