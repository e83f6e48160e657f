"""A chain of two servers of one type, through the whole server: each is told by its name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import httpx
import orjson
import pytest
import trio

from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot, FallbackSlot
from xiaozhi_trio.server import Server
from xiaozhi_trio.testing.device import SimulatedDevice
from xiaozhi_trio.testing.engines import LoudnessDetector, ScriptedRecognizer, ScriptedSynthesizer
from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path
    from typing import Any

    from tests.engines.conftest import Exchange, MemoryServer

pytestmark = pytest.mark.sockets

CLOUD_KEY = "sk-hidden-of-the-cloud"
NAS_KEY = "sk-hidden-of-the-nas"

DOCUMENT = """
[server]
host = "127.0.0.1"
websocket_port = 0
http_port = 0
[state]
directory = "{state}"
[playout]
end_margin_ms = 0
[breaker]
failures = 1
pause_seconds = 60
[llm]
engine = "cloud"
fallback = ["nas"]
[llm.cloud]
engine = "openai"
base_url = "{cloud}/v1"
api_key = "${{CLOUD_KEY}}"
model = "big"
[llm.nas]
engine = "openai"
base_url = "{nas}/v1"
api_key = "${{NAS_KEY}}"
model = "small"
"""


class NoModels:
    """The servers need none."""

    async def ensure(self, name: str) -> Path:
        raise AssertionError(f"nothing needs {name}")


async def answer(exchange: Exchange) -> None:
    """Refuse the key of one of the two servers, repeating it; speak for the other."""
    key = exchange.headers["authorization"].removeprefix("Bearer ")
    if key == CLOUD_KEY:
        refusal = {"error": {"message": f"who is {key}?", "code": "invalid_api_key"}}
        await exchange.answer(orjson.dumps(refusal), status=401, content_type="application/json")
        return
    reply = {"choices": [{"message": {"content": "Hello from the shelf."}}]}
    await exchange.answer(orjson.dumps(reply), content_type="application/json")


def models_asked(server: MemoryServer) -> list[str]:
    return [exchange.json["model"] for exchange in server.exchanges]


@asynccontextmanager
async def serving(
    servers: MemoryServer, state: Path
) -> AsyncIterator[tuple[Server, SimulatedDevice, str]]:
    """The server with its language models behind `servers`, a device of it, its HTTP address."""
    servers.handler = answer
    settings = parse_settings(
        DOCUMENT.format(state=state, cloud=await servers.listen(), nas=await servers.listen()),
        file="c.toml",
        environment={"CLOUD_KEY": CLOUD_KEY, "NAS_KEY": NAS_KEY},
    )

    def count(name: str, **labels: str) -> None:
        server.counters.count(name, **labels)

    # Voice, recognition and speech need models; they are not what this is about.
    engines = attrs.evolve(
        EngineSet.of(settings, NoModels(), count=count),
        vad=EngineSlot.of_ready(LoudnessDetector()),
        asr=EngineSlot.of_ready(ScriptedRecognizer()),
        tts=EngineSlot.of_ready(ScriptedSynthesizer()),
    )
    server = await Server.build(settings, engines)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        url = f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/"
        async with dial(url, device_id="aa:bb:cc:dd:ee:01") as link, trio.open_nursery() as inner:
            device = SimulatedDevice(link)
            inner.start_soon(device.listen_to_server)
            await device.hello()
            http = f"http://127.0.0.1:{addresses.http_port}"
            await page(f"{http}/health", all_are_ready)
            yield server, device, http
            await link.aclose()
        server.shutdown.set()


async def page(url: str, is_there: Callable[[str], bool]) -> str:
    """A page, as soon as that is on it: it is told of what happened a moment later."""
    async with httpx.AsyncClient() as client:
        with trio.fail_after(10):
            while True:
                text = (await client.get(url)).raise_for_status().text
                if is_there(text):
                    return text
                await trio.sleep(0.02)


def all_are_ready(health: str) -> bool:
    """Who is not there yet cannot stand in."""
    chain = orjson.loads(health)["engines"]["llm"]["chain"]
    return {each["state"] for each in chain} == {"ready"}


async def ask(device: SimulatedDevice, times: int) -> None:
    await device.detect("how are you?")
    await device.wait_for("tts stop", count=times)


async def test_the_second_stands_in_under_its_name(
    socket_server: MemoryServer, tmp_path: Path, log_lines: Sequence[dict[str, Any]]
) -> None:
    async with serving(socket_server, tmp_path) as (_, device, http):
        await ask(device, 1)
        assert models_asked(socket_server) == ["big", "small"]
        await ask(device, 2)
        # The first one's circuit is open, the second one's is not.
        assert models_asked(socket_server) == ["big", "small", "small"]
        health_page = await page(f"{http}/health", all_are_ready)
        metrics = await page(
            f"{http}/metrics",
            lambda text: 'stage_seconds_count{engine="nas",outcome="ok",stage="llm"} 2' in text,
        )
        traces = await page(f"{http}/xiaozhi/traces", lambda text: '"nas"' in text)

    health = orjson.loads(health_page)["engines"]["llm"]
    assert health["engine"] == "cloud or nas"
    assert [(each["engine"], each["circuit"]) for each in health["chain"]] == [
        ("cloud", "open"),
        ("nas", "closed"),
    ]
    failed = [line for line in log_lines if line["message"] == "engine is left alone"]
    assert [(line["kind"], line["engine"]) for line in failed] == [("llm", "cloud")]
    assert failed[0]["reason"].startswith("cloud: the server answered 401")

    assert (
        'xiaozhi_engine_failures_total{category="authentication",engine="cloud",kind="llm"} 1.0'
        in metrics
    )
    assert 'xiaozhi_engine_circuits_opened_total{engine="cloud",kind="llm"} 1.0' in metrics
    assert 'xiaozhi_engine_fallbacks_total{engine="nas",kind="llm"} 2.0' in metrics
    for text in (health_page, metrics, traces, str(log_lines)):
        assert "hidden" not in text
        assert "openai" not in text


async def test_their_states_are_apart_from_the_beginning(
    socket_server: MemoryServer, tmp_path: Path
) -> None:
    async with serving(socket_server, tmp_path) as (server, _, _):
        assert isinstance(server.engines.llm, FallbackSlot)
        await server.engines.llm.ready()
        state = server.engines.llm.state
        assert [each.engine for each in state.chain] == ["cloud", "nas"]
