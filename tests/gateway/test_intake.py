from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.config.settings import LimitSettings
from xiaozhi_trio.gateway.intake import Allowance, Intake, MeteredStream

if TYPE_CHECKING:
    from xiaozhi_trio.wire.closing import Closing

LIMITS = LimitSettings(messages_per_second=20, bytes_per_second=16_384, message_bytes=200_000)
PACKET = b"\x82\x85\0\0\0\0audio"
PING = b"\x89\x80\0\0\0\0"


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(clock: Clock) -> Intake:
    return Intake(LIMITS, clock=clock)


def excess_of(intake: Intake) -> Closing:
    assert intake.exceeded is not None
    assert intake.exceeded.fix
    assert len(intake.exceeded.told.encode()) <= 123
    assert intake.pass_on(PACKET) == b""
    return intake.exceeded


def test_a_burst_and_the_rate_pass_and_one_more_does_not(intake: Intake, clock: Clock) -> None:
    assert intake.pass_on(PACKET * 200) == PACKET * 200
    for _ in range(100):
        clock.now += 0.05001
        assert intake.pass_on(PACKET) == PACKET
    assert intake.pass_on(PACKET + PACKET) == b""
    excess = excess_of(intake)
    assert (excess.code, excess.reason) == (1008, "too_many_messages")
    assert excess.told == "too_many_messages: at most 20 a second (limits.messages_per_second)"


@pytest.mark.parametrize("frame", [PING, b"\x02\x80\0\0\0\0", b"\x00\x80\0\0\0\0"])
def test_pings_and_fragments_count(intake: Intake, frame: bytes) -> None:
    assert intake.pass_on(frame * 201) == frame * 200
    assert excess_of(intake).reason == "too_many_messages"


def test_default_limits_let_every_device_pass(clock: Clock) -> None:
    """200 packets of 5 ms a second at the highest bit rate, and 33 at once ahead of them."""
    intake = Intake(LimitSettings(), clock=clock)
    large = b"\x82\xfe\x01\x3f" + bytes(4 + 319)
    assert intake.pass_on(large * 33)
    for _ in range(30 * 200):
        clock.now += 1 / 200
        assert intake.pass_on(large) == large


def test_bytes_are_bounded(intake: Intake, clock: Clock) -> None:
    large = b"\x82\xfe\x20\x00" + bytes(4 + 8192)
    passed = 0
    while intake.pass_on(large):
        passed += len(large)
    assert 200_000 - len(large) < passed <= 200_000
    excess = excess_of(intake)
    assert (excess.code, excess.reason) == (1008, "too_many_bytes")
    assert "16384 a second" in excess.told


def test_the_largest_message_may_come_at_once(intake: Intake) -> None:
    message = b"\x82\xff" + (199_900).to_bytes(8) + bytes(4 + 199_900)
    assert intake.pass_on(message) == message


@pytest.mark.parametrize(
    ("before", "frame"),
    [
        (b"", b"\x82\xff" + (2**62).to_bytes(8)),
        (b"", b"\x81\xff" + (200_001).to_bytes(8)),
        (b"\x01\xff" + (150_000).to_bytes(8) + bytes(150_004), b"\x80\xff" + (50_001).to_bytes(8)),
    ],
)
def test_too_large_a_message_is_known_by_its_header(
    intake: Intake, before: bytes, frame: bytes
) -> None:
    assert intake.pass_on(before + frame + bytes(4)) == before
    excess = excess_of(intake)
    assert (excess.code, excess.reason) == (1009, "message_too_large")
    assert "200000 bytes" in excess.told


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50))))
def test_an_allowance_is_never_more_than_burst_and_rate(spendings: list[tuple[float, int]]) -> None:
    now = spent = 0.0
    allowance = Allowance(5, 40, now)
    for pause, amount in spendings:
        now += pause
        if allowance.spend(amount, now):
            spent += amount
        assert spent <= 40 + 5 * now + 1e-6


async def test_a_metered_stream_ends_at_the_excess(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    stream = MeteredStream(theirs, Intake(LIMITS))
    await ours.send_all(PACKET * 201)
    assert await stream.receive_some() == PACKET * 200
    # Without waiting for anything more of the peer.
    assert await stream.receive_some() == b""
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"bye")
    assert await ours.receive_some() == b"bye"
    await stream.aclose()
    assert await ours.receive_some() == b""
