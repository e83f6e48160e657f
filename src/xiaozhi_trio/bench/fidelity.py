"""How much of speech is left after a codec: two distances between samples before and after.

Both are signal measures, good for comparing settings of one codec with each other and
no good for comparing codecs: neither knows what an ear forgives.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

_SEGMENT_SECONDS: Final = 0.02
_SNR_DB: Final = (-10.0, 35.0)
"""Bounds of one segment, as the measure is usually taken: what is beyond is not heard."""
_QUIET_DB: Final = -45.0
"""A segment so far below the loudest is a pause, of which neither measure has anything to say."""
_WINDOW_SECONDS: Final = 0.032
_FLOOR_DB: Final = -60.0
"""Below the loudest bin; what lies deeper counts as that deep."""
_SMALLEST: Final = 1e-12


def aligned(before: Samples, after: Samples) -> tuple[Samples, Samples]:
    """Both without the delay of the codec, found where they correlate best."""
    size = 1 << (len(before) + len(after)).bit_length()
    product = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
    delay = int(np.argmax(np.fft.irfft(product, size)[: len(after)]))
    length = min(len(before), len(after) - delay)
    return before[:length], after[delay : delay + length]


def segmental_snr(before: Samples, after: Samples, sample_rate: int) -> float:
    """Mean signal-to-noise ratio of the segments with speech, dB; higher is better."""
    size = int(sample_rate * _SEGMENT_SECONDS)
    signal = _cut(before, size)
    noise = signal - _cut(after, size)
    power = (signal**2).mean(axis=1)
    loud = _decibels(power) > _decibels(power.max()) + _QUIET_DB
    ratios = _decibels(power[loud]) - _decibels((noise[loud] ** 2).mean(axis=1))
    return float(np.clip(ratios, *_SNR_DB).mean())


def log_spectral_distance(before: Samples, after: Samples, sample_rate: int) -> float:
    """RMS distance of the power spectra of windows with speech, dB; lower is better."""
    size = int(sample_rate * _WINDOW_SECONDS)
    loudest = _spectra(before, size).max()
    first, second = (
        np.maximum(_decibels(_spectra(samples, size) / loudest), _FLOOR_DB)
        for samples in (before, after)
    )
    voiced = first.max(axis=1) > _QUIET_DB
    return float(np.sqrt(((first - second)[voiced] ** 2).mean(axis=1)).mean())


def _cut(samples: Samples, size: int) -> Samples:
    whole: Samples = samples[: len(samples) // size * size].reshape(-1, size)
    return whole


def _spectra(samples: Samples, size: int) -> Samples:
    windows = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
    power: Samples = np.abs(np.fft.rfft(windows * np.hanning(size), axis=1)) ** 2
    return power


def _decibels(power: npt.ArrayLike) -> Samples:
    decibels: Samples = 10 * np.log10(np.maximum(power, _SMALLEST))
    return decibels
