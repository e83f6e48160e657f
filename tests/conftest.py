"""Fixtures that put a session and a simulated device together, in memory, on a virtual clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.session.agents import Agents
from xiaozhi_trio.session.session import Session, SessionServices
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.testing import (
    LoudnessDetector,
    MemoryLink,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
    encode_inline,
)
from xiaozhi_trio.wire.closing import Closing
from xiaozhi_trio.wire.handshake import Handshake

if TYPE_CHECKING:
    from trio.testing import MockClock

    from xiaozhi_trio.session.end_of_turn.strategy import EndOfTurn


@attrs.define
class Talk:
    """A session under test with the device that talks to it."""

    session: Session
    stock: StockSpeech
    device: SimulatedDevice
    link: MemoryLink
    asr: ScriptedRecognizer
    llm: ScriptedLanguageModel
    tts: ScriptedSynthesizer
    closing: Closing | None = None

    async def run(self) -> None:
        """What the gateway does for a session: its reader and its one writer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            self.closing = await self.session.run(self.link.from_device.receive)
            self.session.outbox.close()
            self.link.from_device.close()

    async def _write(self) -> None:
        async with self.link.to_device:
            while True:
                try:
                    payload = await self.session.outbox.next_payload()
                except trio.EndOfChannel:
                    return
                await self.link.to_device.send(payload)


StartTalk = Callable[..., Awaitable[Talk]]


async def start_talk(
    nursery: trio.Nursery,
    *,
    asr: ScriptedRecognizer | None = None,
    llm: ScriptedLanguageModel | None = None,
    tts: ScriptedSynthesizer | None = None,
    vad: LoudnessDetector | None = None,
    load: bool = False,
    settings: Settings | None = None,
    services: SessionServices | None = None,
    end_of_turn: EndOfTurn | None = None,
    handshake: dict[str, Any] | None = None,
    **device: Any,
) -> Talk:
    """Start a session with scripted engines and a device that has not said hello yet.

    `services` are those of a server that other sessions are at, with its settings and engines.
    """
    asr = asr or ScriptedRecognizer()
    llm = llm or ScriptedLanguageModel()
    tts = tts or ScriptedSynthesizer()
    of = EngineSlot if load else EngineSlot.of_ready
    engines = EngineSet(vad=of(vad or LoudnessDetector()), asr=of(asr), llm=of(llm), tts=of(tts))
    if load:
        nursery.start_soon(engines.load)
    link = MemoryLink()
    simulated = SimulatedDevice(link, **device)
    services = services or SessionServices(
        settings=settings or Settings(),
        engines=engines,
        run_encoding=encode_inline,
        vision=lambda _: ("http://192.168.1.2:8003/mcp/vision/explain", "token"),
    )
    if end_of_turn is not None:
        common = attrs.evolve(services.agents.common, end_of_turn=end_of_turn)
        services = attrs.evolve(services, agents=Agents(common))
    said = {
        "device_id": "aa:bb:cc:dd:ee:01",
        "protocol_version": simulated.binary_version,
        **(handshake or {}),
    }
    session = Session(Handshake(**said), "f" * 32, services)
    talk = Talk(session, services.stock, simulated, link, asr, llm, tts)
    nursery.start_soon(talk.run)
    nursery.start_soon(simulated.listen_to_server)
    return talk


@pytest.fixture
async def talk(nursery: trio.Nursery, autojump_clock: MockClock) -> StartTalk:
    """`start_talk` in the test's own nursery.

    A test that uses it must also ask for `autojump_clock`: pytest-trio looks for a
    clock among the arguments of the test itself only.
    """
    assert trio.lowlevel.current_clock() is autojump_clock, "ask for autojump_clock too"
    return partial(start_talk, nursery)


@pytest.fixture(scope="session")
def talk_in() -> StartTalk:
    """`start_talk` for a test that runs Trio itself, once for each of its examples."""
    return start_talk
