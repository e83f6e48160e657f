from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.engines.breaker import CircuitBreaker, CircuitStatus

if TYPE_CHECKING:
    from trio.testing import MockClock


def breaker() -> CircuitBreaker:
    return CircuitBreaker(failures=3, pause_seconds=10)


def fail(circuit: CircuitBreaker, times: int = 1) -> list[bool]:
    told = []
    for _ in range(times):
        with circuit.permit() as permit:
            told.append(permit.failed())
    return told


async def test_failures_in_a_row_open_it(autojump_clock: MockClock) -> None:
    circuit = breaker()
    assert circuit.status is CircuitStatus.CLOSED
    assert fail(circuit, 2) == [False, False]
    assert circuit.admits
    assert circuit.seconds_left == 0
    assert fail(circuit) == [True]
    assert circuit.status is CircuitStatus.OPEN
    assert not circuit.admits
    await trio.sleep(4)
    assert circuit.seconds_left == pytest.approx(6)


async def test_an_answer_that_came_to_its_end_starts_the_count_anew() -> None:
    circuit = breaker()
    fail(circuit, 2)
    with circuit.permit() as permit:
        assert not permit.answered()
        permit.completed()
    assert fail(circuit, 3) == [False, False, True]


async def test_an_engine_that_always_breaks_off_is_found_out() -> None:
    circuit = breaker()
    for _ in range(3):
        with circuit.permit() as permit:
            permit.answered()
            permit.failed()
    assert circuit.status is CircuitStatus.OPEN


async def test_a_request_without_an_outcome_says_nothing() -> None:
    circuit = breaker()
    fail(circuit, 2)
    with circuit.permit():
        pass
    assert fail(circuit) == [True]


async def test_nothing_passes_an_open_circuit() -> None:
    circuit = breaker()
    fail(circuit, 3)
    with pytest.raises(RuntimeError, match="ask `admits`"), circuit.permit():
        raise AssertionError


async def test_one_probe_at_a_time(autojump_clock: MockClock) -> None:
    circuit = breaker()
    fail(circuit, 3)
    await trio.sleep(10)
    assert circuit.status is CircuitStatus.HALF_OPEN
    with circuit.permit() as probe:
        assert not circuit.admits
        assert probe.answered()
        assert circuit.status is CircuitStatus.CLOSED
        assert circuit.admits
        # The same request may still break off, as any other.
        assert not probe.failed()
    assert fail(circuit, 2) == [False, True]


async def test_a_probe_that_fails_opens_it_for_another_pause(autojump_clock: MockClock) -> None:
    circuit = breaker()
    fail(circuit, 3)
    await trio.sleep(12)
    with circuit.permit() as probe:
        assert not probe.failed()
        assert circuit.status is CircuitStatus.OPEN
    assert circuit.seconds_left == pytest.approx(10)


async def test_a_probe_that_is_given_up_makes_room(autojump_clock: MockClock) -> None:
    circuit = breaker()
    fail(circuit, 3)
    await trio.sleep(10)

    async def probe() -> None:
        with circuit.permit():
            await trio.sleep_forever()

    with trio.move_on_after(1):
        await probe()
    assert circuit.status is CircuitStatus.HALF_OPEN
    assert circuit.admits


async def test_what_began_before_it_opened_changes_nothing(autojump_clock: MockClock) -> None:
    circuit = breaker()
    with circuit.permit() as early, circuit.permit() as other:
        fail(circuit, 3)
        await trio.sleep(10)
        with circuit.permit() as probe:
            assert not early.failed()
            other.answered()
            other.completed()
            assert circuit.status is CircuitStatus.HALF_OPEN
            assert not circuit.admits
            assert probe.answered()
