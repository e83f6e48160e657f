from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from xiaozhi_trio.collector import calm_collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    # Whatever ran before in this process may have calmed it already.
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_lives_is_left_out_and_full_collections_are_rare() -> None:
    before = gc.get_threshold()
    calm_collector()
    assert gc.get_freeze_count() > 10_000
    assert all(after >= was for after, was in zip(gc.get_threshold(), before, strict=True))
    assert gc.get_threshold()[2] >= 10 * before[2]


def test_cycles_made_afterwards_are_still_collected() -> None:
    calm_collector()

    class Knot:
        def __init__(self) -> None:
            self.itself = self

    for _ in range(20_000):
        Knot()
    knots = sum(isinstance(thing, Knot) for thing in gc.get_objects(0) + gc.get_objects(1))
    assert knots < 20_000
