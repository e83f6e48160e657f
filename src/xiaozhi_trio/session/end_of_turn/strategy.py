"""What every end-of-turn strategy is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class Pause:
    """A silence that may be the end."""

    pcm: bytes
    """What was said up to it, at `engines.protocols.LISTENING_RATE`."""
    voiced_ms: int
    """How much of that is voice."""
    transcript: str
    """What was said, empty where it is not known."""
    says_ended: bool = False
    """The recogniser itself takes it for the end."""


@runtime_checkable
class EndOfTurn(Protocol):
    """Decides how long a silence must last to be the end.

    Asked once for each pause, as soon as its transcript is there. It may take its time
    and may be cancelled at any await: until it has answered, and where speech resumes,
    `[listening] end_silence_ms` holds. Failures are `EngineError` and nothing else.
    """

    async def silence_ms(self, pause: Pause) -> float:
        """The silence that ends the turn, in ms of audio from its beginning; infinite for never."""
