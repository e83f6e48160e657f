"""The air in front of a device: voices, noises and its own loudspeaker, mixed as they sound."""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from xiaozhi_trio.engines.protocols import LISTENING_RATE

_REMEMBERED_SECONDS: Final = 2.0
"""A sound that ended longer ago is not asked for any more: no packet is that long."""

Samples = npt.NDArray[np.int32]


@attrs.frozen(eq=False)
class _Sound:
    at: float
    samples: Samples

    @property
    def end(self) -> float:
        return self.at + len(self.samples) / LISTENING_RATE


class Room:
    """Sounds at their places in Trio time."""

    def __init__(self) -> None:
        self._sounds: list[_Sound] = []

    def sound(self, at: float, pcm: bytes, *, gain: float = 1.0) -> float:
        """Let PCM at `LISTENING_RATE` sound from `at` on; gives when it ends."""
        samples = (np.frombuffer(pcm, "<i2") * gain).astype(np.int32)
        sound = _Sound(at, samples)
        self._sounds = [each for each in self._sounds if each.end > at - _REMEMBERED_SECONDS]
        self._sounds.append(sound)
        return sound.end

    def hear(self, at: float, milliseconds: int) -> bytes:
        """What sounded for so long from `at` on, as PCM at `LISTENING_RATE`."""
        mixed = np.zeros(LISTENING_RATE * milliseconds // 1000, np.int32)
        for sound in self._sounds:
            # Rounded, for a sample more or less at each packet would be a click.
            offset = round((sound.at - at) * LISTENING_RATE)
            begin, end = max(offset, 0), min(offset + len(sound.samples), len(mixed))
            if begin < end:
                mixed[begin:end] += sound.samples[begin - offset : end - offset]
        pcm: bytes = mixed.clip(-32768, 32767).astype("<i2").tobytes()
        return pcm
