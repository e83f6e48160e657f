"""How well frames of speech came on time, from their times of arrival alone."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def deviations_ms(arrivals: Sequence[float], frame_ms: int) -> list[float]:
    """How far each paced frame came from its place in the rhythm of its turn; late is positive.

    The frames that a server sends ahead, all at once, have no place in the rhythm and
    are left out. The rhythm is one frame each `frame_ms`, anchored at the median of
    the paced frames, so that it needs no knowledge of the server's clock. `arrivals`
    in seconds.
    """
    if not arrivals:
        return []
    ahead = sum(at - arrivals[0] < frame_ms / 2000 for at in arrivals)
    places = [at * 1000 - number * frame_ms for number, at in enumerate(arrivals)][ahead:]
    if not places:
        return []
    anchor = median(places)
    return [place - anchor for place in places]


def silence_ms(arrivals: Sequence[float], frame_ms: int) -> float:
    """How long the loudspeaker of a device fell silent in mid-speech for want of a frame.

    The device plays each frame as soon as it has come and the one before has ended.
    """
    silence, played_until = 0.0, arrivals[0] * 1000 if arrivals else 0.0
    for at in arrivals:
        silence += max(0.0, at * 1000 - played_until)
        played_until = max(played_until, at * 1000) + frame_ms
    return silence
