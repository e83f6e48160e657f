"""A network that stalls."""

from __future__ import annotations

import trio

from xiaozhi_trio.testing import MemoryLink
from xiaozhi_trio.testing.downlink import Downlink


async def test_what_waited_comes_at_once_when_it_flows(autojump_clock, nursery) -> None:
    network, link = Downlink(), MemoryLink()
    behind = network.over(link)
    came: list[tuple[float, object]] = []

    async def listen() -> None:
        while True:
            came.append((trio.current_time(), await behind.receive()))

    start = trio.current_time()
    nursery.start_soon(listen)
    for number in range(4):
        if number == 1:
            network.stall()
            network.stall()
        await link.to_device.send(str(number))
        await trio.sleep(1)
    network.flow()
    network.flow()
    await trio.sleep(1)
    assert [payload for _, payload in came] == ["0", "1", "2", "3"]
    network.stall()
    await link.to_device.send("4")
    await trio.sleep(1)
    assert len(came) == 4
    assert start + 4 > came[0][0]
    nursery.cancel_scope.cancel()


async def test_what_the_device_says_is_not_held_up(autojump_clock) -> None:
    network, link = Downlink(), MemoryLink()
    network.stall()
    await network.over(link).send("hello")
    assert await link.from_device.receive() == "hello"


async def test_the_server_waits_where_no_more_fits_on_the_way(autojump_clock) -> None:
    link = MemoryLink(room=2)
    sent = 0
    with trio.move_on_after(1):
        for _ in range(5):
            await link.to_device.send("x")
            sent += 1
    assert sent == 2
