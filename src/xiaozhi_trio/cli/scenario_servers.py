"""Servers that scenarios are played against in real time: one of our own, or a running one."""

from __future__ import annotations

import secrets
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio
from trio_websocket import ConnectionRejected, HandshakeError

from xiaozhi_trio.cli.failures import leaves
from xiaozhi_trio.config.structuring import structure_settings
from xiaozhi_trio.server import Server
from xiaozhi_trio.session.phrases import stock_phrases
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.testing import websocket_link
from xiaozhi_trio.testing.firmware_device import CannotConnect
from xiaozhi_trio.testing.scenario_engine_set import engine_set

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.testing.firmware_device import Dial, Line
    from xiaozhi_trio.testing.scenario import Scenario
    from xiaozhi_trio.testing.scenario_engines import ScenarioEngines
    from xiaozhi_trio.testing.scenario_run import Join

_LOOPBACK: Final = {"host": "127.0.0.1", "websocket_port": 0, "http_port": 0}


def scenario_settings(scenario: Scenario, state: str = "") -> Settings:
    """What a scenario's server runs with, on free ports of the loopback address.

    `state` is its state folder. Raises `cattrs.ClassValidationError` where the
    scenario's tables are no settings.
    """
    tables: dict[str, Any] = dict(scenario.server)
    tables["server"] = {**_table(tables, "server"), **_LOOPBACK}
    tables["state"] = {"directory": state}
    return structure_settings(tables, {})


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    # What is no table is for the settings to complain of.
    return table if isinstance(table, dict) else {name: table}


@asynccontextmanager
async def own_server(scenario: Scenario, engines: ScenarioEngines) -> AsyncIterator[Dial]:
    """A server of this version with the scenario's engines and settings.

    Raises `xiaozhi_trio.server.StartError` in an exception group.
    """
    with tempfile.TemporaryDirectory() as state:
        settings = scenario_settings(scenario, state)
        server = await Server.build(settings, engine_set(engines, settings))
        if not scenario.engines.stock:
            server.stock = _EmptyStock(server.engines.tts, server.stock.run_encoding, settings)
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.run)
            path = settings.server.websocket_path
            nursery.start_soon(_stop_with, engines, server)
            if scenario.engines.stock:
                await server.stock.prepare(stock_phrases(settings.conversation))
            yield _dial(f"ws://127.0.0.1:{addresses.websocket_port}{path}", "", scenario)
            engines.shutdown.set()


class _EmptyStock(StockSpeech):
    """Stays empty, so that every phrase is asked for when it is due."""

    async def prepare(self, phrases: Iterable[str]) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()


async def _stop_with(engines: ScenarioEngines, server: Server) -> None:
    await engines.shutdown.wait()
    server.shutdown.set()


def running_server(url: str, token: str) -> Join:
    """A server that somebody else has started, with engines of its own."""

    @asynccontextmanager
    async def join(scenario: Scenario, engines: ScenarioEngines) -> AsyncIterator[Dial]:  # noqa: ARG001
        await trio.lowlevel.checkpoint()
        yield _dial(url, token, scenario)

    return join


def _dial(url: str, token: str, scenario: Scenario) -> Dial:
    # A device of its own for each scenario: what one said is not another's history.
    device_id = f"02:{':'.join(f'{byte:02x}' for byte in secrets.token_bytes(5))}"

    @asynccontextmanager
    async def dial() -> AsyncIterator[Line]:
        async with AsyncExitStack() as stack:
            connecting = websocket_link.dial(
                url,
                device_id=device_id,
                client_id="scenario",
                token=token,
                binary_version=scenario.device.binary_version,
            )
            try:
                link = await stack.enter_async_context(connecting)
            except OSError as error:
                raise CannotConnect(str(error)) from error
            except BaseExceptionGroup as group:
                reasons = list(leaves(group))
                if all(isinstance(each, ConnectionRejected | HandshakeError) for each in reasons):
                    raise CannotConnect(", ".join(map(str, reasons))) from group
                raise
            yield link

    return dial
