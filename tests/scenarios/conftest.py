"""Scenarios in memory: a session for each connection, on a virtual clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.config.structuring import structure_settings
from xiaozhi_trio.session.phrases import stock_phrases
from xiaozhi_trio.session.session import Session, SessionServices
from xiaozhi_trio.testing import MemoryLink, encode_inline
from xiaozhi_trio.testing.firmware_device import CannotConnect
from xiaozhi_trio.testing.scenario_engine_set import engine_set
from xiaozhi_trio.wire.closing import GOING_AWAY, Closing
from xiaozhi_trio.wire.handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.testing.firmware_device import Dial, Line
    from xiaozhi_trio.testing.scenario import Scenario
    from xiaozhi_trio.testing.scenario_engines import ScenarioEngines
    from xiaozhi_trio.testing.scenario_run import Join


SERVER_SHUTDOWN = Closing(GOING_AWAY, "server_shutdown")
ON_THE_WAY = 8
"""Messages that a network holds before the server has to wait for it."""


async def _write(session: Session, link: MemoryLink) -> None:
    async with link.to_device:
        while True:
            try:
                payload = await session.outbox.next_payload()
            except trio.EndOfChannel:
                return
            await link.to_device.send(payload)


async def _serve(session: Session, link: MemoryLink) -> None:
    """What the gateway does for a session: its reader and its one writer."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, session, link)
        await session.run(link.from_device.receive)
        session.outbox.close()
        link.from_device.close()


@asynccontextmanager
async def join_in_memory(scenario: Scenario, engines: ScenarioEngines) -> AsyncIterator[Dial]:
    """A server without sockets: its sessions live until the scenario is over."""
    settings = structure_settings(scenario.server, {})
    services = SessionServices(
        settings=settings,
        engines=engine_set(engines, settings),
        run_encoding=encode_inline,
        vision=lambda _: ("http://192.168.1.2:8003/mcp/vision/explain", "token"),
    )
    sessions: list[Session] = []

    async def stop() -> None:
        await engines.shutdown.wait()
        for session in sessions:
            session.end(SERVER_SHUTDOWN)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(services.engines.load)
        nursery.start_soon(stop)
        if scenario.engines.stock:
            await services.stock.prepare(stock_phrases(settings.conversation))

        @asynccontextmanager
        async def dial() -> AsyncIterator[Line]:
            if engines.shutdown.is_set():
                raise CannotConnect("the server has stopped")
            link = MemoryLink(room=ON_THE_WAY)
            handshake = Handshake(
                device_id="aa:bb:cc:dd:ee:01", protocol_version=scenario.device.binary_version
            )
            sessions.append(Session(handshake, "f" * 32, services))
            nursery.start_soon(_serve, sessions[-1], link)
            try:
                yield link
            finally:
                link.hang_up()

        yield dial
        nursery.cancel_scope.cancel()


@pytest.fixture
def join() -> Join:
    return join_in_memory
