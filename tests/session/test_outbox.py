"""The outbox: order, bounds, withdrawal."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.wire.messages import Stt, TtsStart, TtsStop


@pytest.fixture
async def overflows() -> list[str]:
    return []


@pytest.fixture
async def outbox(overflows: list[str]) -> Outbox:
    return Outbox("s1", on_overflow=lambda: overflows.append("overflow"))


async def drain(outbox: Outbox) -> list[str | bytes]:
    outbox.close()
    taken = []
    try:
        while True:
            payload = await outbox.next_payload()
            taken.append(json.loads(payload)["type"] if isinstance(payload, str) else payload)
    except trio.EndOfChannel:
        return taken


async def test_order_is_kept(outbox) -> None:
    outbox.post(TtsStart(), turn=1)
    await outbox.send_audio(b"a", turn=1)
    outbox.post(Stt("x"), turn=1)
    await outbox.send_audio(b"b", turn=1)
    assert await drain(outbox) == ["tts", b"a", "stt", b"b"]


async def test_a_withdrawn_turn_is_silent_and_others_are_not(outbox) -> None:
    outbox.post(Stt("old"), turn=1)
    await outbox.send_audio(b"old", turn=1)
    await outbox.send_audio(b"new", turn=2)
    outbox.post(TtsStop())
    outbox.withdraw(1)
    outbox.post(Stt("late"), turn=1)
    await outbox.send_audio(b"late", turn=1)
    assert await drain(outbox) == [b"new", "tts"]


async def test_audio_waits_for_room(outbox, nursery) -> None:
    sent: list[int] = []

    async def send() -> None:
        for number in range(20):
            await outbox.send_audio(bytes([number]), turn=1)
            sent.append(number)

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert len(sent) == 8
    await outbox.next_payload()
    await wait_all_tasks_blocked()
    assert len(sent) == 9
    outbox.withdraw(1)
    await wait_all_tasks_blocked()
    assert len(sent) == 20


async def test_messages_never_wait_and_are_bounded(outbox, overflows) -> None:
    for _ in range(256):
        outbox.post(TtsStop())
    assert not overflows
    outbox.post(TtsStop())
    outbox.post(TtsStop())
    assert overflows == ["overflow"]
    assert len(await drain(outbox)) == 256


async def test_a_cancelled_sender_leaves_nothing_behind(outbox, nursery) -> None:
    for _ in range(8):
        await outbox.send_audio(b"x", turn=1)
    with trio.move_on_after(0.01) as scope:
        await outbox.send_audio(b"y", turn=1)
    assert scope.cancelled_caught
    assert await drain(outbox) == [b"x"] * 8


async def test_a_cancelled_reader_loses_nothing(outbox, nursery) -> None:
    with trio.move_on_after(0.01):
        await outbox.next_payload()
    await outbox.send_audio(b"x", turn=1)
    assert await outbox.next_payload() == b"x"


async def test_closed_takes_nothing_more(outbox) -> None:
    outbox.close()
    outbox.post(TtsStop())
    await outbox.send_audio(b"x", turn=1)
    with pytest.raises(trio.EndOfChannel):
        await outbox.next_payload()


async def test_timestamps_rise_also_within_a_millisecond(outbox) -> None:
    outbox.binary_version = 2
    stamps = []
    for _ in range(20):
        await outbox.send_audio(b"x", turn=1)
        frame = await outbox.next_payload()
        stamps.append(int.from_bytes(frame[8:12]))
    assert stamps[0] > 0
    assert stamps == sorted(set(stamps))


async def test_who_has_to_know_is_told_when_all_was_sent(outbox, nursery) -> None:
    waited: list[int] = []

    async def wait(turn: int) -> None:
        waited.append(await outbox.sent(turn))

    for packet in (b"a", b"b"):
        await outbox.send_audio(packet, turn=1)
    await outbox.send_audio(b"c", turn=2)
    nursery.start_soon(wait, 1)
    await wait_all_tasks_blocked()
    await outbox.next_payload()
    await wait_all_tasks_blocked()
    assert waited == []
    await outbox.next_payload()
    await wait_all_tasks_blocked()
    assert waited == [2]
    assert await outbox.sent(1) == 0


async def test_nobody_waits_for_what_was_withdrawn(outbox, nursery) -> None:
    await outbox.send_audio(b"a", turn=1)
    nursery.start_soon(outbox.sent, 1)
    await wait_all_tasks_blocked()
    outbox.withdraw(1)
    await outbox.send_audio(b"b", turn=2)
    nursery.start_soon(outbox.sent, 2)
    await wait_all_tasks_blocked()
    outbox.close()
