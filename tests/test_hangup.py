from __future__ import annotations

import pytest
import trio
import trio.testing

from xiaozhi_trio.hangup import LINGER_SECONDS, hang_up


async def test_waits_for_a_peer_that_still_sends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"still talking")
    nursery.start_soon(hang_up, theirs)
    assert await ours.receive_some() == b""
    await trio.sleep(0.5)
    await ours.send_all(b"more")
    await ours.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        await theirs.receive_some()


async def test_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    _, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    await hang_up(theirs)
    assert trio.current_time() - began == LINGER_SECONDS
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")


async def test_does_not_swallow_without_end(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xiaozhi_trio.hangup._LINGER_BYTES", 10)
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(bytes(10))
    began = trio.current_time()
    await hang_up(theirs)
    assert trio.current_time() == began


async def test_peer_that_is_gone_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.aclose()
    ours.receive_stream.close()
    await hang_up(theirs)


async def test_closes_when_cancelled() -> None:
    _, theirs = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await hang_up(theirs)
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"x")
