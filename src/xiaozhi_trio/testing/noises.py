"""Noises of a room, made by arithmetic: the same samples on every machine.

Each is 16-bit mono PCM at 16 kHz. Their loudness is relative to full scale, so that speech
can be laid over them at a known distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE: Final = 16_000
"""Hz."""

_Samples = npt.NDArray[np.float64]


class Noise(Protocol):
    """Makes a noise of so many seconds."""

    def __call__(self, seconds: float, level_db: float = ...) -> bytes:
        """PCM at `RATE`; `level_db` is its RMS relative to full scale."""


def white(seconds: float, level_db: float = -30.0) -> bytes:
    """A detuned radio."""
    return _pcm(_random(1).standard_normal(_count(seconds)), level_db)


def pink(seconds: float, level_db: float = -30.0) -> bytes:
    """Rain or a fan: 3 dB less power with each octave."""
    return _pcm(_coloured(_random(2), _count(seconds), 0.5), level_db)


def hum(seconds: float, level_db: float = -30.0) -> bytes:
    """A transformer: 50 Hz and its harmonics."""
    time = np.arange(_count(seconds)) / RATE
    return _pcm(
        sum((np.sin(2 * np.pi * 50 * n * time + n) / n for n in range(1, 12)), np.zeros_like(time)),
        level_db,
    )


def clicks(seconds: float, level_db: float = -30.0) -> bytes:
    """A keyboard: short decaying bursts, some eight a second."""
    random = _random(3)
    samples = np.zeros(_count(seconds))
    for _ in range(int(seconds * 8)):
        _lay(samples, _burst(random, 0.008, 0.002, 0.0), int(random.integers(len(samples))))
    return _pcm(samples, level_db)


def coughs(seconds: float, level_db: float = -20.0) -> bytes:
    """One cough a second and a half: a sharp burst and a hoarse tail."""
    random = _random(4)
    samples = np.zeros(_count(seconds))
    for start in np.arange(0.3, seconds - 0.5, 1.5):
        at = int(start * RATE)
        _lay(samples, 2 * _burst(random, 0.06, 0.02, 0.3), at)
        _lay(samples, _burst(random, 0.3, 0.09, 0.6), at + int(0.05 * RATE))
    return _pcm(samples, level_db)


def cough(seconds: float, level_db: float = -15.0) -> bytes:
    """One burst that dies away, as long as the whole."""
    count = _count(seconds)
    fading = np.exp(-3 * np.arange(count) / max(count, 1))
    return _pcm(_random(7).standard_normal(count) * fading, level_db)


def door(seconds: float, level_db: float = -15.0) -> bytes:
    """A door that is slammed: a thud below 200 Hz and its rattling."""
    random = _random(5)
    samples = np.zeros(_count(seconds))
    at = int(0.4 * RATE)
    _lay(samples, 3 * _burst(random, 0.4, 0.08, 1.2), at)
    for step in range(4):
        _lay(samples, _burst(random, 0.05, 0.01, 0.2), at + int((0.12 + 0.07 * step) * RATE))
    return _pcm(samples, level_db)


def babble(voices: list[bytes], seconds: float, level_db: float = -35.0) -> bytes:
    """People at other tables: many copies of `voices`, each of its own pitch and time."""
    random = _random(6)
    count = _count(seconds)
    samples = np.zeros(count)
    for copy in range(12):
        voice = np.frombuffer(voices[copy % len(voices)], "<i2").astype(np.float64)
        at = np.arange(0, len(voice) - 1, random.uniform(0.75, 1.35))
        shifted = np.interp(at, np.arange(len(voice)), voice)
        looped = np.resize(shifted, count)
        samples += np.roll(looped, random.integers(count))
    return _pcm(samples, level_db)


NOISES: Final[Mapping[str, Noise]] = {
    "white": white,
    "pink": pink,
    "hum": hum,
    "clicks": clicks,
    "coughs": coughs,
    "door": door,
}
"""Those that need no voices, by name."""


def mixed(*sounds: bytes) -> bytes:
    """Sounds at once, each padded with silence to the longest."""
    samples = np.zeros(max(map(len, sounds)) // 2)
    for sound in sounds:
        heard = np.frombuffer(sound, "<i2")
        samples[: len(heard)] += heard
    return _clipped(samples)


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _count(seconds: float) -> int:
    return int(seconds * RATE)


def _coloured(random: np.random.Generator, count: int, exponent: float) -> _Samples:
    """Noise whose amplitude falls with the frequency to the power of `exponent`."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** exponent, count)


def _burst(random: np.random.Generator, seconds: float, decay: float, exponent: float) -> _Samples:
    noise = _coloured(random, _count(seconds), exponent)
    noise /= np.abs(noise).max()
    faded: _Samples = noise * np.exp(-np.arange(len(noise)) / (decay * RATE))
    return faded


def _lay(samples: _Samples, burst: _Samples, at: int) -> None:
    room = samples[at : at + len(burst)]
    room += burst[: len(room)]


def _pcm(samples: _Samples, level_db: float) -> bytes:
    scale = 10 ** (level_db / 20) / np.sqrt(np.mean(samples**2))
    return _clipped(samples * scale * 32_768)


def _clipped(samples: _Samples) -> bytes:
    return bytes(np.clip(samples, -32_768, 32_767).astype("<i2").tobytes())
