"""The same silence always."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.session.end_of_turn.strategy import Pause


class Silence:
    """`end_silence_ms`, whatever was said."""

    def __init__(self, settings: ListeningSettings) -> None:
        self._settings = settings

    async def silence_ms(self, pause: Pause) -> float:  # noqa: ARG002  any pause is like another
        """See `EndOfTurn`."""
        await trio.lowlevel.checkpoint()
        return self._settings.end_silence_ms
