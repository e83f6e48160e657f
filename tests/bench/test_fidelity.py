from __future__ import annotations

import numpy as np
import pytest

from xiaozhi_trio.bench.fidelity import aligned, log_spectral_distance, segmental_snr

RATE = 16_000
SPEECH = np.sin(np.arange(RATE) / 7) * np.sin(np.arange(RATE) / 900) ** 2
NOISE = np.random.default_rng(1).standard_normal(RATE)


def test_nothing_lost_is_the_best_there_is() -> None:
    assert segmental_snr(SPEECH, SPEECH, RATE) == 35
    assert log_spectral_distance(SPEECH, SPEECH, RATE) == 0


def test_noise_counts_by_its_level() -> None:
    tone = np.sin(np.arange(RATE) / 7)
    faint, loud = tone + 0.01 * NOISE, tone + 0.1 * NOISE
    assert segmental_snr(tone, faint, RATE) == pytest.approx(37 - 2, abs=1)
    assert segmental_snr(tone, loud, RATE) == pytest.approx(17, abs=0.5)
    assert 0 < log_spectral_distance(tone, faint, RATE) < log_spectral_distance(tone, loud, RATE)


def test_noise_in_a_pause_does_not_count() -> None:
    paused = np.concatenate([SPEECH, np.zeros(RATE)])
    disturbed = np.concatenate([SPEECH, 0.001 * NOISE])
    assert segmental_snr(paused, disturbed, RATE) == segmental_snr(paused, paused, RATE)
    assert log_spectral_distance(paused, disturbed, RATE) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("delay", [0, 104, 312])
def test_the_delay_of_a_codec_is_found(delay: int) -> None:
    noise = NOISE + SPEECH
    late = np.concatenate([np.zeros(delay), noise])[: len(noise)]
    before, after = aligned(noise, late)
    assert len(before) == len(noise) - delay
    assert np.array_equal(before, after)
