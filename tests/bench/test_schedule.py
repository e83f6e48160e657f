from __future__ import annotations

import pytest

from xiaozhi_trio.bench.schedule import deviations_ms, silence_ms

AHEAD = [10.0] * 5


def rhythm(count: int) -> list[float]:
    return [*AHEAD, *(10.0 + 0.06 * number for number in range(1, count + 1))]


def test_a_perfect_rhythm_deviates_nowhere() -> None:
    deviations = deviations_ms(rhythm(20), 60)
    assert len(deviations) == 20
    assert deviations == pytest.approx([0.0] * 20)


def test_one_late_frame_is_late_by_what_it_is_late() -> None:
    arrivals = rhythm(20)
    arrivals[10] += 0.025
    assert max(deviations_ms(arrivals, 60)) == pytest.approx(25)
    assert silence_ms(arrivals, 60) == 0


def test_a_late_start_shifts_the_rhythm_and_is_no_deviation() -> None:
    arrivals = [at + 1 for at in rhythm(20)]
    assert deviations_ms(arrivals, 60) == pytest.approx([0.0] * 20)


def test_silence_begins_where_the_lead_is_used_up() -> None:
    arrivals = [*rhythm(20)]
    stalled = [*arrivals[:12], *(at + 0.5 for at in arrivals[12:])]
    # Five frames were there at once, the one that is playing included.
    assert silence_ms(stalled, 60) == pytest.approx(500 - 4 * 60)


def test_nothing_came() -> None:
    assert deviations_ms([], 60) == []
    assert deviations_ms(AHEAD, 60) == []
    assert silence_ms([], 60) == 0
