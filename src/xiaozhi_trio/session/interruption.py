"""Why a reply fell silent, in the words of traces and metrics."""

from __future__ import annotations

import enum


class Interruption(enum.Enum):
    """What silenced a reply, be it for good or not."""

    BARGE_IN = "barge_in"
    """Somebody spoke over it."""
    SPEECH = "speech"
    """What was said meanwhile turned out to be for us, where no voice may silence it before."""
    ABORT = "abort"
    """The device asked for it."""
    WAKE_WORD = "wake_word"
    """The device was called."""
    BUTTON = "button"
    """A button was pressed, to speak."""
    TYPED = "typed"
    """Something was typed."""
    FAREWELL = "farewell"
    """Nobody had spoken for long."""
