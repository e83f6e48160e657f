from __future__ import annotations

from xiaozhi_trio.telemetry.counters import Count, Counters


def test_counts_by_name_and_labels_in_any_order() -> None:
    counters = Counters()
    counters.count("turns")
    counters.count("refused", reason="b", status="401")
    counters.count("refused", status="401", reason="b")
    counters.count("refused", reason="a")
    assert counters.snapshot() == (
        Count("refused", (("reason", "a"),), 1),
        Count("refused", (("reason", "b"), ("status", "401")), 2),
        Count("turns", (), 1),
    )


def test_snapshot_does_not_change_afterwards() -> None:
    counters = Counters()
    counters.count("x")
    before = counters.snapshot()
    counters.count("x")
    assert before == (Count("x", (), 1),)
