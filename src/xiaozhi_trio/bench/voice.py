"""A voice made of numbers: vowels that a voice activity detector takes for speech.

Harmonics of a gliding pitch under the formants of five vowels, in syllables. It needs
no model and no recording, is the same on every machine, and costs a codec what speech
costs it.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from xiaozhi_trio.audio.opus import OpusEncoder

UPLINK_RATE: Final = 16_000
UPLINK_FRAME_MS: Final = 60
"""What firmware 2.4.2 sends: 16 kHz, 60 ms, encoder complexity 0."""

_PITCH_HERTZ: Final = 120.0
_HIGHEST_HERTZ: Final = 3800.0
_SYLLABLE_SECONDS: Final = 0.22
_LEVEL: Final = 9000
_NOISE: Final = 0.01
_VOWELS: Final = np.array(
    [
        (730, 1090, 2440),
        (270, 2290, 3010),
        (300, 870, 2240),
        (530, 1840, 2480),
        (570, 840, 2410),
    ],
    dtype=np.float64,
)
"""First three formants in Hz (Peterson and Barney 1952, averages of men)."""
_FORMANT_GAINS: Final = (1.0, 0.6, 0.3)
_FORMANT_WIDTHS: Final = (80.0, 100.0, 150.0)

Samples = npt.NDArray[np.float64]


@cache
def voice(milliseconds: int, sample_rate: int) -> bytes:
    """Speech-like PCM, signed 16-bit little-endian mono."""
    count = milliseconds * sample_rate // 1000
    seconds = np.arange(count) / sample_rate
    syllables = seconds / _SYLLABLE_SECONDS
    number, progress = syllables.astype(int), syllables % 1.0
    formants = (
        _VOWELS[number % len(_VOWELS)] * (1 - progress)[:, None]
        + _VOWELS[(number + 1) % len(_VOWELS)] * progress[:, None]
    )
    sound = _voiced(seconds, sample_rate, formants)
    sound *= 0.25 + 0.75 * np.sin(np.pi * progress) ** 0.7
    sound += _NOISE * np.random.default_rng(1).standard_normal(count)
    pcm: bytes = (sound * (_LEVEL / np.abs(sound).max())).astype("<i2").tobytes()
    return pcm


def _voiced(seconds: Samples, sample_rate: int, formants: Samples) -> Samples:
    pitch = _PITCH_HERTZ * (
        1 + 0.15 * np.sin(2 * np.pi * 0.7 * seconds) + 0.04 * np.sin(2 * np.pi * 3.1 * seconds)
    )
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    sound = np.zeros_like(seconds)
    for harmonic in range(1, int(_HIGHEST_HERTZ / _PITCH_HERTZ) + 1):
        hertz = pitch * harmonic
        gain = np.zeros_like(seconds)
        for formant, (height, width) in enumerate(
            zip(_FORMANT_GAINS, _FORMANT_WIDTHS, strict=True)
        ):
            gain += height / (1 + ((hertz - formants[:, formant]) / width) ** 2)
        gain[hertz > _HIGHEST_HERTZ] = 0.0
        sound += gain * np.sin(harmonic * phase) / np.sqrt(harmonic)
    return sound


@attrs.frozen
class Question:
    """What a simulated user says, as the packets of a microphone; silence follows it."""

    packets: tuple[bytes, ...]
    voiced_packets: int
    """Packets up to and with the last one that holds voice."""

    @property
    def voiced_seconds(self) -> float:
        """From the first packet to the end of the last voice."""
        return self.voiced_packets * UPLINK_FRAME_MS / 1000


@cache
def question(voiced_ms: int = 1500, *more_ms: int, silent_ms: int = 3000) -> Question:
    """An utterance and the silence after it, in Opus as firmware 2.4.2 encodes it.

    `more_ms` is a pause and further voice, in turns; it ends with voice.
    """
    if len(more_ms) % 2:
        raise ValueError(f"pauses and voice came as {more_ms}; end with voice")
    encoder = OpusEncoder(UPLINK_RATE, frame_ms=UPLINK_FRAME_MS, complexity=0)
    size = encoder.frame_bytes
    pcm = b""
    for number, stretch_ms in enumerate((voiced_ms, *more_ms)):
        sound = voice(stretch_ms, UPLINK_RATE)
        pcm += bytes(len(sound)) if number % 2 else sound
    voiced = -(-len(pcm) // size)
    pcm = pcm.ljust(voiced * size, b"\0")
    pcm += bytes(-(-silent_ms // UPLINK_FRAME_MS) * size)
    packets = [encoder.encode(pcm[start : start + size]) for start in range(0, len(pcm), size)]
    return Question(tuple(packets), voiced)
