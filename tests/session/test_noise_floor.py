from __future__ import annotations

import math
from itertools import groupby

import numpy as np
import pytest

from xiaozhi_trio.session.noise_floor import (
    AUDIBLE_DB,
    CLEAR_DB,
    SILENCE_DB,
    NoiseFloor,
    level_db,
)
from xiaozhi_trio.testing import noises

WINDOW_MS = 32.0
WINDOW_BYTES = 1_024
BASE = 0.5


def heard(floor: NoiseFloor, pcm: bytes) -> list[bool]:
    """For each window, whether a voice may begin for a detector that is sure of everything."""
    voice: list[bool] = []
    for start in range(0, len(pcm) - WINDOW_BYTES + 1, WINDOW_BYTES):
        level = level_db(pcm[start : start + WINDOW_BYTES])
        floor.add(level, WINDOW_MS)
        voice.append(floor.threshold(BASE, level) <= 1.0)
    return voice


def longest_run(voice: list[bool], *, of: bool) -> int:
    return max((len([*run]) for value, run in groupby(voice) if value is of), default=0)


def syllables(seconds: float, level_db: float) -> bytes:
    """Sound with the rhythm of speech: five syllables a second, with dips between them."""
    time = np.arange(int(seconds * noises.RATE)) / noises.RATE
    loudness = np.maximum(np.sin(2 * np.pi * 5 * time), 0.05)
    wave = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 20)) * loudness
    wave *= 32_768 * 10 ** (level_db / 20) / np.sqrt(np.mean(wave**2))
    return wave.astype("<i2").tobytes()


def test_levels() -> None:
    assert level_db(b"") == SILENCE_DB
    assert level_db(bytes(1_024)) == SILENCE_DB
    assert level_db(np.full(512, 900, "<i2").tobytes()) == SILENCE_DB
    square = np.tile(np.array([32_767, -32_767], "<i2"), 256)
    assert level_db(square.tobytes()) == pytest.approx(0, abs=0.01)
    assert level_db((square // 10).tobytes()) == pytest.approx(-20, abs=0.01)


@pytest.mark.parametrize("name", ["white", "pink", "hum"])
def test_steady_noise_is_no_voice_once_it_is_known(name: str) -> None:
    floor = NoiseFloor()
    voice = heard(floor, noises.NOISES[name](6.0))
    known = int(2_000 / WINDOW_MS) + 1
    assert longest_run(voice[known:], of=True) <= 2
    assert floor.floor_db == pytest.approx(-30, abs=6)


@pytest.mark.parametrize("name", ["white", "pink", "hum"])
def test_voice_over_noise_is_still_found(name: str) -> None:
    floor = NoiseFloor()
    noise = noises.NOISES[name](8.0)
    quiet = len(noise) // 2
    speech = syllables(4.0, -15.0)
    voice = heard(floor, noises.mixed(noise, bytes(quiet) + speech))
    spoken = voice[quiet // WINDOW_BYTES + 2 :]
    assert sum(spoken) > 0.5 * len(spoken)
    # The dips in which the floor is heard are no longer than a syllable's.
    assert longest_run(spoken, of=False) * WINDOW_MS < 160


def test_the_floor_follows_the_room() -> None:
    floor = NoiseFloor()
    heard(floor, noises.white(3.0, -60.0))
    assert floor.floor_db == pytest.approx(-60, abs=2)
    loud = heard(floor, noises.white(4.0, -30.0))
    assert loud[5]
    assert not any(loud[-30:])
    heard(floor, noises.white(3.0, -60.0))
    assert floor.floor_db == pytest.approx(-60, abs=2)


def test_speech_of_ten_seconds_does_not_become_the_floor() -> None:
    floor = NoiseFloor()
    voice = heard(floor, noises.mixed(syllables(10.0, -15.0), noises.white(10.0, -45.0)))
    assert sum(voice[-60:]) >= 25


@pytest.mark.parametrize(
    ("above", "threshold"),
    [
        (CLEAR_DB, 0.5),
        (AUDIBLE_DB, 0.9),
        ((CLEAR_DB + AUDIBLE_DB) / 2, 0.7),
        (AUDIBLE_DB - 0.1, math.inf),
    ],
)
def test_the_threshold_falls_with_the_distance(above: float, threshold: float) -> None:
    floor = NoiseFloor()
    for _ in range(100):
        floor.add(-40.0, WINDOW_MS)
    assert floor.threshold(BASE, -40.0 + above) == pytest.approx(threshold)


def test_without_a_floor_or_in_a_quiet_room_nothing_is_raised() -> None:
    floor = NoiseFloor()
    assert floor.floor_db is None
    assert floor.threshold(BASE, -40.0) == BASE
    for _ in range(100):
        floor.add(-80.0, WINDOW_MS)
    assert floor.threshold(BASE, -80.0) == BASE
    floor.reset()
    assert floor.floor_db is None
