from __future__ import annotations

import numpy as np
import pytest

from xiaozhi_trio.testing import noises


def level(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(float)
    return float(10 * np.log10(np.mean(samples**2)) - 20 * np.log10(32_768))


@pytest.mark.parametrize("name", noises.NOISES)
def test_a_noise_is_as_long_and_the_same_each_time(name: str) -> None:
    make = noises.NOISES[name]
    assert len(make(1.0)) == 2 * noises.RATE
    assert make(1.0) == make(1.0)


def test_a_noise_is_as_loud_as_asked() -> None:
    assert level(noises.white(1.0, -40.0)) == pytest.approx(-40, abs=0.1)
    assert level(noises.hum(1.0)) == pytest.approx(-30, abs=0.1)


def test_babble_is_made_of_voices() -> None:
    voices = [noises.hum(0.5), noises.white(0.7)]
    babble = noises.babble(voices, 2.0)
    assert len(babble) == 4 * noises.RATE
    assert level(babble) == pytest.approx(-35, abs=0.1)


def test_sounds_at_once_are_added_and_never_wrap_around() -> None:
    loud = np.full(4, 30_000, "<i2").tobytes()
    assert np.frombuffer(noises.mixed(loud, loud[:4]), "<i2").tolist() == [
        32_767,
        32_767,
        30_000,
        30_000,
    ]
