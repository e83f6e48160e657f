"""Figures as they are reported: distributions and single values, each with its unit."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@attrs.frozen
class Figure:
    """One figure. A single value has a `count` of 1 and is its own percentile."""

    name: str
    unit: str
    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float]) -> Figure:
        """The distribution of the values; of none of them it is all NaN.

        Percentiles are values that occurred (nearest rank), never between two of them.
        """
        if not values:
            return cls(name, unit, 0, *[float("nan")] * 4)
        ranks = np.percentile(values, (50, 95, 99, 100), method="inverted_cdf")
        return cls(name, unit, len(values), *map(float, ranks))

    def as_json(self) -> Mapping[str, Any]:
        """Name, unit and numbers; what is not a number is null."""
        return {key: None if value != value else value for key, value in attrs.asdict(self).items()}


def median_of(rounds: Sequence[Figure]) -> Figure:
    """The same figure of several rounds as one: the median of each of its numbers.

    A distribution counts the values of all rounds; a single value stays one.
    """
    first = rounds[0]
    is_single = all(figure.count <= 1 for figure in rounds)
    return Figure(
        first.name,
        first.unit,
        first.count if is_single else sum(figure.count for figure in rounds),
        *(
            median(getattr(figure, field) for figure in rounds)
            for field in ("p50", "p95", "p99", "max")
        ),
    )
