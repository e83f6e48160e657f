"""The whole server over real sockets: start, devices side by side, drain."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from xiaozhi_trio import server as server_module
from xiaozhi_trio.config.engines import RecognizerSettings
from xiaozhi_trio.config.settings import (
    AgentSettings,
    AuthenticationSettings,
    ConversationSettings,
    ListeningSettings,
    PlayoutSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback import FallbackLanguageModel
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.registry import EngineKind
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot, FallbackSlot
from xiaozhi_trio.server import Server, StartError, serve
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
)
from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.sockets

STORY = ["It was a dark and stormy night. "] * 40


def settings(tmp_path: Path, **more: object) -> Settings:
    return Settings(
        server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0, drain_seconds=3),
        state=StateSettings(directory=str(tmp_path)),
        playout=PlayoutSettings(end_margin_ms=0),
        **more,
    )


def engines(**kinds: object) -> EngineSet:
    return EngineSet(
        vad=EngineSlot(kinds.get("vad") or LoudnessDetector()),
        asr=EngineSlot(kinds.get("asr") or ScriptedRecognizer()),
        llm=EngineSlot(kinds.get("llm") or ScriptedLanguageModel(STORY)),
        tts=EngineSlot(kinds.get("tts") or ScriptedSynthesizer()),
    )


@asynccontextmanager
async def serving(configured: Settings, parts: EngineSet) -> AsyncIterator[tuple[Server, str, str]]:
    """A server with these engines, its WebSocket URL and its HTTP URL."""
    server = await Server.build(configured, parts)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        yield (
            server,
            f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/",
            f"http://127.0.0.1:{addresses.http_port}",
        )
        server.shutdown.set()


@asynccontextmanager
async def device(url: str, number: int = 1) -> AsyncIterator[tuple[SimulatedDevice, object]]:
    async with (
        dial(url, device_id=f"aa:bb:cc:dd:ee:{number:02x}") as link,
        trio.open_nursery() as nursery,
    ):
        simulated = SimulatedDevice(link)
        nursery.start_soon(simulated.listen_to_server)
        yield simulated, link
        await link.aclose()


async def test_a_device_is_answered(tmp_path) -> None:
    async with (
        serving(settings(tmp_path), engines(llm=ScriptedLanguageModel(["Hi."]))) as (
            _,
            ws,
            http,
        ),
        device(ws) as (simulated, _),
    ):
        await simulated.hello()
        await simulated.listen("manual")
        await simulated.speak(1.0, burst=True)
        await simulated.stop_listening()
        await simulated.wait_for("tts stop")
        assert simulated.spoken_ms() > 0
        async with httpx.AsyncClient() as client:
            health = (await client.get(f"{http}/health")).json()
        assert health["status"] == "ok"
        assert health["sessions"] == 1
        assert {engine["state"] for engine in health["engines"].values()} == {"ready"}


async def test_each_device_is_greeted_by_its_agent(tmp_path) -> None:
    kind = AgentSettings(
        name="kind", devices=("*:01",), conversation=ConversationSettings(greeting_en="Welcome!")
    )
    silent = AgentSettings(
        name="silent", devices=("*:02",), conversation=ConversationSettings(greeting_en="")
    )
    prepared = trio.Event()
    tts = ScriptedSynthesizer(fails=lambda text: prepared.set() if text == "Welcome!" else None)
    configured = settings(tmp_path, agents=(kind, silent))
    async with serving(configured, engines(tts=tts)) as (_, ws, _), device(ws, 1) as (one, _):
        with trio.fail_after(5):
            await prepared.wait()
        async with device(ws, 2) as (two, _), device(ws, 3) as (three, _):
            for each in (one, two, three):
                await each.hello()
                await each.detect("Hi, ESP!")
            await one.wait_for("tts stop")
            await three.wait_for("tts stop")
            said = [
                [event.body["text"] for event in each.of_kind("tts sentence_start")]
                for each in (one, two, three)
            ]
    assert said == [["Welcome!"], [], ["Hi, I'm listening."]]


async def test_an_agent_that_cannot_be_is_told(tmp_path) -> None:
    odd = AgentSettings(
        name="odd", devices=("*",), listening=ListeningSettings(end_of_turn="psychic")
    )
    with pytest.raises(StartError, match=r'agent "odd": \[listening\] end_of_turn'):
        await Server.build(settings(tmp_path, agents=(odd,)), engines())


async def test_health_tells_what_loads_and_what_failed(tmp_path) -> None:
    error = EngineError("no such file", engine="x", category=EngineErrorCategory.UNAVAILABLE)
    parts = engines(
        asr=ScriptedRecognizer(load_seconds=60), tts=ScriptedSynthesizer(load_error=error)
    )
    async with serving(settings(tmp_path), parts) as (server, _, _):
        await wait_all_tasks_blocked(0.05)
        health = server.health()
        assert health["status"] == "degraded"
        assert health["engines"]["asr"]["state"] == "loading"
        assert "no such file" in health["engines"]["tts"]["reason"]


async def test_health_tells_of_each_engine_of_a_chain(tmp_path) -> None:
    error = EngineError("no key", engine="x", category=EngineErrorCategory.AUTHENTICATION)
    parts = attrs.evolve(
        engines(),
        llm=FallbackSlot(
            FallbackLanguageModel,
            [ScriptedLanguageModel(load_error=error), ScriptedLanguageModel()],
            FallbackPolicy(first_answer_seconds=4, failures=3, pause_seconds=10),
            kind=EngineKind.LLM,
        ),
    )
    async with serving(settings(tmp_path), parts) as (server, _, _):
        await wait_all_tasks_blocked(0.05)
        health = server.health()
    assert health["status"] == "degraded"
    llm = health["engines"]["llm"]
    assert (llm["engine"], llm["state"]) == ("scripted-llm or scripted-llm", "ready")
    assert [(each["state"], each["circuit"]) for each in llm["chain"]] == [
        ("failed", "closed"),
        ("ready", "closed"),
    ]
    assert "no key" in llm["chain"][0]["reason"]


async def test_110_a_stopping_server_tells_speaking_devices(tmp_path) -> None:
    parts = engines()
    async with serving(settings(tmp_path), parts) as (server, ws, _), device(ws) as (one, link):
        await one.hello()
        await one.detect("tell me a story")
        await one.wait_for("audio", count=3)
        began = trio.current_time()
        server.shutdown.set()
        await one.wait_for_hang_up()
        assert trio.current_time() - began < 3
        assert one.kinds[-1] == "tts stop"
        assert link.close_code == 1001
    assert all(slot._engine.is_closed for slot in parts.slots().values())


async def test_106_a_second_connection_of_a_device_replaces_the_first(tmp_path) -> None:
    async with (
        serving(settings(tmp_path), engines()) as (server, ws, _),
        device(ws, 7) as (first, link),
    ):
        await first.hello()
        await first.detect("tell me a story")
        await first.wait_for("audio")
        async with device(ws, 7) as (second, _):
            await second.hello()
            await first.wait_for_hang_up()
            assert first.kinds[-1] == "tts stop"
            assert link.close_code == 1000
            await second.detect("and to me")
            await second.wait_for("audio")
            assert len(server.roster) == 1


async def test_105_an_idle_channel_is_closed(tmp_path) -> None:
    impatient = settings(tmp_path, listening=ListeningSettings(idle_seconds=0.2))
    async with serving(impatient, engines()) as (_, ws, _), device(ws) as (one, link):
        await one.hello()
        await one.wait_for_hang_up()
        assert link.close_code == 1000


async def test_a_busy_port_is_told(tmp_path) -> None:
    async with serving(settings(tmp_path), engines()) as (server, _, _):
        busy = Settings(
            server=ServerSettings(
                host="127.0.0.1", websocket_port=server._websocket_port, http_port=0
            ),
            state=StateSettings(directory=str(tmp_path)),
        )
        with pytest.raises(StartError, match="websocket_port"):
            await serve(busy)


async def test_an_unwritable_state_folder_matters_only_with_authentication(tmp_path) -> None:
    file = tmp_path / "a file"
    file.write_text("")
    blocked = StateSettings(directory=str(file))
    await Server.build(Settings(state=blocked))
    with pytest.raises(StartError, match="state"):
        await Server.build(
            Settings(state=blocked, authentication=AuthenticationSettings(enabled=True))
        )


async def test_an_unknown_engine_is_told(tmp_path) -> None:
    with pytest.raises(StartError, match="ears"):
        await Server.build(Settings(asr=RecognizerSettings(engine="ears")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains(tmp_path, number) -> None:
    script = f"""
import trio
from xiaozhi_trio.config.settings import ServerSettings, Settings, StateSettings
from xiaozhi_trio.config.engines import *
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio import server
from xiaozhi_trio.testing import *
parts = EngineSet(*(EngineSlot(e) for e in (
    LoudnessDetector(), ScriptedRecognizer(), ScriptedLanguageModel(), ScriptedSynthesizer())))
server.EngineSet.of = lambda settings, models, count: parts
async def main():
    settings = Settings(server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0),
                        state=StateSettings(directory={str(tmp_path)!r}))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, settings)
        print("up", flush=True)
trio.run(main)
print("down", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.readline() == "down\n"
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("host", "told"),
    [("0.0.0.0", ("192.168.1.5", "10.0.0.5")), ("127.0.0.1", ("127.0.0.1",))],
)
async def test_the_addresses_told_are_those_listened_on(monkeypatch, tmp_path, host, told) -> None:
    monkeypatch.setattr(server_module, "lan_addresses", lambda: ["192.168.1.5", "10.0.0.5"])
    configured = settings(tmp_path)
    server = await Server.build(
        attrs.evolve(configured, server=attrs.evolve(configured.server, host=host)), engines()
    )
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        server.shutdown.set()
    http, websocket = addresses.http_port, addresses.websocket_port
    assert addresses.ota_urls == tuple(f"http://{name}:{http}/xiaozhi/ota/" for name in told)
    assert addresses.websocket_urls == tuple(
        f"ws://{name}:{websocket}/xiaozhi/v1/" for name in told
    )
