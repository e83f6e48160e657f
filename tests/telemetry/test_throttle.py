from __future__ import annotations

from xiaozhi_trio.telemetry.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_line_a_period_and_the_next_one_tells_what_was_left_out() -> None:
    clock = Clock()
    throttle = Throttle[str](period=60, clock=clock)
    assert throttle.admit("a") == 0
    assert [throttle.admit("a") for _ in range(3)] == [None] * 3
    assert throttle.admit("b") == 0
    clock.now += 59.9
    assert throttle.admit("a") is None
    clock.now += 0.1
    assert throttle.admit("a") == 4
    assert throttle.admit("a") is None
    clock.now += 60
    assert throttle.admit("b") == 0


def test_what_is_overdue_is_told_once_and_quiet_keys_are_forgotten() -> None:
    clock = Clock()
    throttle = Throttle[str](period=60, clock=clock)
    for key in "aabbbc":
        throttle.admit(key)
    clock.now += 30
    throttle.admit("d")
    throttle.admit("d")
    assert list(throttle.overdue()) == []
    clock.now += 30
    assert list(throttle.overdue()) == [("a", 1), ("b", 2)]
    assert len(throttle) == 3
    # The telling was the line of a period of its own.
    assert throttle.admit("a") is None
    assert throttle.admit("c") == 0
    clock.now += 60
    assert sorted(throttle.overdue()) == [("a", 1), ("d", 1)]


def test_memory_is_bounded_by_forgetting_the_key_heard_of_least_recently() -> None:
    throttle = Throttle[int](period=60, capacity=3, clock=Clock())
    for key in (1, 2, 3, 1):
        throttle.admit(key)
    assert throttle.admit(4) == 0
    assert len(throttle) == 3
    assert throttle.admit(1) is None
    assert throttle.admit(2) == 0
    for key in range(100):
        throttle.admit(key)
    assert len(throttle) == 3
