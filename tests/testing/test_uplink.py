"""What a device's microphone sends, and what it loses."""

from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.testing.room import Room
from xiaozhi_trio.testing.tone_speech import speech, transcript
from xiaozhi_trio.testing.uplink import Uplink, UplinkProfile

RATE = 16_000
SILENCE = bytes(1920)


class Network:
    """Takes packets; stalled, it takes none."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, bytes]] = []
        self.free = trio.Event()
        self.free.set()

    async def send(self, packet: bytes, timestamp: int) -> None:
        await self.free.wait()
        self.packets.append((trio.current_time(), packet))


def uplink_over(network: Network, **profile) -> Uplink:
    return Uplink(network.send, frame_ms=60, profile=UplinkProfile(**profile))


async def test_the_newest_40_packets_are_kept_while_nothing_can_be_sent(
    autojump_clock, nursery
) -> None:
    network = Network()
    network.free = trio.Event()
    uplink = uplink_over(network)
    for _ in range(45):
        uplink.push(SILENCE)
    assert uplink.dropped == 5
    nursery.start_soon(uplink.run)
    network.free.set()
    await trio.sleep(1)
    assert len(network.packets) == 40


async def test_a_burst_arrives_together(autojump_clock, nursery) -> None:
    network = Network()
    uplink = uplink_over(network, burst=5)
    nursery.start_soon(uplink.run)
    for _ in range(10):
        uplink.push(SILENCE)
        await trio.sleep(0.059)
    await trio.sleep(1)
    times = sorted({round(at, 3) for at, _ in network.packets})
    assert len(network.packets) == 10
    assert len(times) == 2


async def test_the_rest_of_a_burst_arrives_too(autojump_clock, nursery) -> None:
    network = Network()
    uplink = uplink_over(network, burst=5)
    nursery.start_soon(uplink.run)
    uplink.push(SILENCE)
    await trio.sleep(1)
    assert len(network.packets) == 1


async def test_jitter_keeps_the_order(autojump_clock, nursery) -> None:
    network = Network()
    uplink = uplink_over(network, jitter_ms=200)
    nursery.start_soon(uplink.run)
    pcm = speech("in order", RATE)
    for start in range(0, len(pcm) + 9600, 1920):
        uplink.push(pcm[start : start + 1920].ljust(1920, b"\0"))
        await trio.sleep(0.060)
    await trio.sleep(3)
    decoder = OpusDecoder(RATE)
    heard = b"".join(decoder.decode(packet) for _, packet in network.packets)
    assert transcript(heard) == "in order"


async def test_loss_is_the_same_with_the_same_seed(autojump_clock, nursery) -> None:
    counts = []
    for seed in (3, 3, 4):
        network = Network()
        uplink = uplink_over(network, loss=0.3, seed=seed)
        nursery.start_soon(uplink.run)
        for _ in range(30):
            uplink.push(SILENCE)
        await trio.sleep(1)
        counts.append(len(network.packets))
    assert counts[0] == counts[1] < 30


@pytest.mark.parametrize(("dtx", "long"), [("off", 20), ("packets", 3), ("gaps", 3)])
async def test_silence_under_dtx(autojump_clock, nursery, dtx, long) -> None:
    network = Network()
    uplink = uplink_over(network, dtx=dtx)
    nursery.start_soon(uplink.run)
    for _ in range(20):
        uplink.push(SILENCE)
    await trio.sleep(1)
    sizes = [len(packet) for _, packet in network.packets]
    assert sum(size > 1 for size in sizes) == long
    assert len(sizes) == (3 if dtx == "gaps" else 20)


async def test_a_dtx_packet_is_silence_as_long_as_the_others(autojump_clock, nursery) -> None:
    network = Network()
    uplink = uplink_over(network, dtx="packets")
    nursery.start_soon(uplink.run)
    for _ in range(6):
        uplink.push(SILENCE)
    await trio.sleep(1)
    decoder = OpusDecoder(RATE)
    assert [len(decoder.decode(packet)) for _, packet in network.packets] == [1920] * 6


def test_sounds_in_a_room_are_heard_where_they_are_and_mixed() -> None:
    room = Room()
    loud = b"\x10\x27" * 1600
    assert room.sound(1.0, loud) == pytest.approx(1.1)
    room.sound(1.05, loud, gain=0.5)
    assert room.hear(0.5, 60) == SILENCE
    before, during, both, after = (room.hear(at, 20) for at in (0.98, 1.0, 1.05, 1.15))
    assert before == bytes(640)
    assert during == loud[:640]
    assert both == b"\x98\x3a" * 320
    assert after == bytes(640)


def test_a_room_forgets_what_was_long_ago() -> None:
    room = Room()
    room.sound(0.0, b"\x10\x27" * 1600)
    room.sound(10.0, b"\x10\x27" * 1600)
    assert room.hear(0.0, 20) == bytes(640)
