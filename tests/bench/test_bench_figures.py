from __future__ import annotations

import math

from xiaozhi_trio.bench.figures import Figure, median_of


def test_percentiles_are_values_that_occurred() -> None:
    figure = Figure.of("x", "ms", [float(number) for number in range(1, 201)])
    assert (figure.count, figure.p50, figure.p95, figure.p99, figure.max) == (
        200,
        100,
        190,
        198,
        200,
    )


def test_a_single_value_is_its_own_percentile() -> None:
    figure = Figure.of("x", "", [7])
    assert {figure.p50, figure.p95, figure.p99, figure.max} == {7}


def test_no_values_give_no_numbers() -> None:
    figure = Figure.of("x", "ms", [])
    assert figure.count == 0
    assert math.isnan(figure.p50)
    assert figure.as_json()["max"] is None


def test_rounds_are_told_by_the_median_of_each_number() -> None:
    rounds = [Figure.of("x", "ms", [value, value * 10]) for value in (1, 2, 90)]
    told = median_of(rounds)
    assert (told.count, told.p50, told.max) == (6, 2, 20)


def test_a_single_value_of_several_rounds_stays_one() -> None:
    told = median_of([Figure.of("x", "", [value]) for value in (3, 1, 2)])
    assert (told.count, told.p50) == (1, 2)
