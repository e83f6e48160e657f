"""The queue of a device: short, counted in packets, silent about what it drops."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.testing.loudspeaker import Loudspeaker, sound_of
from xiaozhi_trio.testing.tone_speech import speech, transcript

FRAME_MS = 60


def packets(count: int, frame_ms: int = FRAME_MS) -> list[bytes]:
    encoder = OpusEncoder(24_000, frame_ms=frame_ms)
    return [encoder.encode(bytes(encoder.frame_bytes)) for _ in range(count)]


@pytest.fixture
async def loudspeaker(nursery: trio.Nursery) -> Loudspeaker:
    loudspeaker = Loudspeaker()
    nursery.start_soon(loudspeaker.run)
    return loudspeaker


async def test_of_45_packets_at_once_5_are_lost_silently(autojump_clock, loudspeaker) -> None:
    for packet in packets(45):
        loudspeaker.push(packet)
    await loudspeaker.drained()
    assert loudspeaker.losses.overflow == 5
    assert len(loudspeaker.played) == 40


@pytest.mark.parametrize("frame_ms", [20, 60])
async def test_the_queue_counts_packets_not_time(autojump_clock, loudspeaker, frame_ms) -> None:
    for packet in packets(41, frame_ms):
        loudspeaker.push(packet)
    assert loudspeaker.losses.overflow == 1


async def test_packets_follow_each_other_without_a_seam(autojump_clock, loudspeaker) -> None:
    for packet in packets(10):
        loudspeaker.push(packet)
    await loudspeaker.drained()
    for earlier, later in pairwise(loudspeaker.played):
        assert later.at == pytest.approx(earlier.end)


async def test_a_late_packet_leaves_a_gap(autojump_clock, loudspeaker) -> None:
    first, second = packets(2)
    loudspeaker.push(first)
    await trio.sleep(0.5)
    loudspeaker.push(second)
    await loudspeaker.drained()
    early, late = loudspeaker.played
    assert late.at - early.end == pytest.approx(0.5 - 0.060, abs=0.01)


async def test_a_reset_loses_what_came_for_the_reply(autojump_clock, loudspeaker) -> None:
    early, *rest = packets(5)
    loudspeaker.push(early)
    loudspeaker.reply_announced()
    for packet in rest[:2]:
        loudspeaker.push(packet)
    loudspeaker.reset()
    assert loudspeaker.losses.reset == 2
    assert loudspeaker.is_drained
    loudspeaker.reply_announced()
    for packet in rest[2:]:
        loudspeaker.push(packet)
    await loudspeaker.drained()
    assert len(loudspeaker.played) == 2


async def test_a_reset_while_a_packet_is_decoded_forgets_it(autojump_clock, loudspeaker) -> None:
    loudspeaker.push(packets(1)[0])
    await trio.sleep(0.002)
    loudspeaker.reset()
    await trio.sleep(1)
    assert not loudspeaker.played


async def test_what_sounds_at_a_flush_goes_on_to_its_end(autojump_clock, loudspeaker) -> None:
    for packet in packets(5):
        loudspeaker.push(packet)
    await trio.sleep(0.030)
    loudspeaker.flush()
    assert not loudspeaker.is_drained
    await loudspeaker.drained()
    assert len(loudspeaker.played) == 1
    assert loudspeaker.losses.reset == 0


async def test_corrupt_packets_are_counted_and_passed_over(autojump_clock, loudspeaker) -> None:
    loudspeaker.push(b"\xff" * 20)
    loudspeaker.push(packets(1)[0])
    await loudspeaker.drained()
    assert loudspeaker.losses.corrupt == 1
    assert len(loudspeaker.played) == 1


async def test_timestamps_of_played_packets_are_given_once_and_at_most_three_are_kept(
    autojump_clock, loudspeaker
) -> None:
    for number, packet in enumerate(packets(5), start=1):
        loudspeaker.push(packet, timestamp=number * 60)
    await loudspeaker.drained()
    given = [loudspeaker.next_timestamp() for _ in range(4)]
    assert given == [180, 240, 300, 0]


async def test_what_was_played_is_understood(autojump_clock, loudspeaker) -> None:
    encoder = OpusEncoder(24_000, frame_ms=FRAME_MS)
    pcm = speech("Hello you.", 24_000)
    for start in range(0, len(pcm), encoder.frame_bytes):
        piece = pcm[start : start + encoder.frame_bytes].ljust(encoder.frame_bytes, b"\0")
        loudspeaker.push(encoder.encode(piece))
    await loudspeaker.drained()
    assert transcript(sound_of(loudspeaker.played)) == "Hello you."
