"""How often things happened since the start: what the console and the metrics show."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import attrs

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Pairs of name and value, sorted by name."""


@attrs.frozen
class Count:
    """One counter's value."""

    name: str
    labels: Labels
    value: int


class Counters:
    """Counters by name and labels.

    Label values must come from a small set of our own words, never from a peer:
    each combination is kept for the life of the process.
    """

    def __init__(self) -> None:
        self._values: Counter[tuple[str, Labels]] = Counter()

    def count(self, name: str, **labels: str) -> None:
        """Add one."""
        self._values[name, tuple(sorted(labels.items()))] += 1

    def snapshot(self) -> tuple[Count, ...]:
        """All counters by name and labels."""
        return tuple(
            Count(name, labels, value) for (name, labels), value in sorted(self._values.items())
        )
