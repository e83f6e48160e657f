from __future__ import annotations

import pytest
import trio
import trio.testing

from xiaozhi_trio.gateway.transport import Transport


async def test_pieces_come_one_by_one_and_then_the_stream() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    transport = Transport(theirs, b"first", b"", b"second")
    await ours.send_all(b"third")
    assert await transport.receive_some(3) == b"fir"
    assert await transport.receive_some(3) == b"st"
    assert await transport.receive_some() == b"second"
    assert await transport.receive_some() == b"third"
    await transport.wait_send_all_might_not_block()


async def test_all_but_the_first_waits_for_an_answer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    transport = Transport(theirs, b"head", b"rest", answer_first=True)
    assert await transport.receive_some() == b"head"
    with trio.move_on_after(1) as patience:
        await transport.receive_some()
    assert patience.cancelled_caught
    nursery.start_soon(transport.send_all, b"answer")
    assert await transport.receive_some() == b"rest"
    assert await ours.receive_some() == b"answer"


async def test_closing_ends_a_receive_and_leaves_the_stream_beneath(
    nursery: trio.Nursery,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    transport = Transport(theirs)
    ended = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive_some()
        ended.set()

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    await transport.aclose()
    with trio.fail_after(5):
        await ended.wait()
    for refused in (transport.receive_some(), transport.send_all(b"x")):
        with pytest.raises(trio.ClosedResourceError):
            await refused
    await theirs.send_all(b"still open")
    assert await ours.receive_some() == b"still open"


async def test_last_word_waits_for_the_send_that_has_begun(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    deliver = theirs.send_stream.send_all_hook

    async def deliver_late() -> None:
        await trio.sleep(5)
        await deliver()

    theirs.send_stream.send_all_hook = deliver_late
    transport = Transport(theirs)
    nursery.start_soon(transport.send_all, b"slow")
    await trio.testing.wait_all_tasks_blocked()
    await transport.close_with(b"last")
    assert await ours.receive_some() == b"slowlast"
    assert trio.current_time() == 10


async def test_no_last_word_after_a_send_that_was_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    deliver = theirs.send_stream.send_all_hook
    theirs.send_stream.send_all_hook = trio.sleep_forever
    transport = Transport(theirs)
    with trio.move_on_after(1):
        await transport.send_all(b"half")
    theirs.send_stream.send_all_hook = deliver
    await transport.close_with(b"last")
    await theirs.send_all(b"!")
    assert await ours.receive_some() == b"half!"
