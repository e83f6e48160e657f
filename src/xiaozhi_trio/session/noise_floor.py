"""How loud it is where the device stands while nobody speaks.

The floor is found by minimum statistics (R. Martin, IEEE Trans. Speech Audio Proc. 9(5),
2001): speech has pauses, so that the least level within a stretch longer than any word
belongs to the room, whether or not somebody speaks in it. What is hardly louder than the
floor is no voice, whatever a detector thinks of it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np

SILENCE_DB: Final = -90.0
"""dB full scale; the least level that is told apart, about one unit of 16 bits."""

QUIET_DB: Final = -65.0
"""dB full scale; a floor below that is a quiet room, where whispers count."""
AUDIBLE_DB: Final = 3.0
"""Above the floor; most windows of steady noise stay below, and two in a row above are rare."""
CLEAR_DB: Final = 9.0
"""Above the floor; from there on the detector is trusted as in a quiet room."""
_MOST_CERTAIN: Final = 0.9
"""Probability asked for where a window is barely audible above the floor."""

_SMOOTHING_MS: Final = 100.0
"""Time constant of the level: the least of many rough levels would be far below the floor."""
_STRETCH_MS: Final = 2_000.0
"""The floor is the least level of this long, longer than people speak without a dip."""
_PARTS: Final = 8
"""Pieces of that stretch; the oldest is forgotten as a whole."""


def level_db(pcm: bytes) -> float:
    """Level of 16-bit PCM in dB full scale, without its constant part; `SILENCE_DB` at least."""
    samples = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float64)
    if not samples.size:
        return SILENCE_DB
    # Less than half the time that `np.var` takes; every window of every microphone comes by here.
    samples -= samples.sum() / samples.size
    power = float(samples @ samples) / samples.size / 32_768**2
    return max(SILENCE_DB, 10 * math.log10(power)) if power > 0 else SILENCE_DB


class NoiseFloor:
    """The floor of one microphone, and what it asks of a voice."""

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._least = math.inf
        self._least_ms = 0.0
        # Of the stretches before the one under way.
        self._past: deque[float] = deque(maxlen=_PARTS - 1)

    @property
    def floor_db(self) -> float | None:
        """In dB full scale; None until a whole stretch was heard.

        Before that, the least level may well be that of somebody who speaks already.
        """
        if len(self._past) < _PARTS - 1:
            return None
        return min(self._least, *self._past)

    def add(self, level: float, window_ms: float) -> None:
        """Hear one window of `level` dB full scale."""
        weight = 1 - math.exp(-window_ms / _SMOOTHING_MS)
        before = level if self._smoothed is None else self._smoothed
        self._smoothed = before + weight * (level - before)
        self._least = min(self._least, self._smoothed)
        self._least_ms += window_ms
        if self._least_ms >= _STRETCH_MS / _PARTS:
            self._past.append(self._least)
            self._least, self._least_ms = math.inf, 0.0

    def threshold(self, base: float, level: float) -> float:
        """The voice probability that a window of `level` has to reach for a voice to begin.

        Nothing reaches it less than `AUDIBLE_DB` above the floor; from there it falls evenly
        to `base` at `CLEAR_DB`. It is `base`, too, while no floor is known or the room is
        quiet. Not for the windows of a voice that has begun, for words end quietly.
        """
        floor = self.floor_db
        if floor is None or floor <= QUIET_DB:
            return base
        above = level - floor
        if above < AUDIBLE_DB:
            return math.inf
        if above >= CLEAR_DB:
            return base
        return base + (_MOST_CERTAIN - base) * (CLEAR_DB - above) / (CLEAR_DB - AUDIBLE_DB)

    def reset(self) -> None:
        """Forget the room."""
        self._smoothed = None
        self._least, self._least_ms = math.inf, 0.0
        self._past.clear()
