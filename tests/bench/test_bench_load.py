"""The load against a real server: that it measures is asserted, not what it measures."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.bench.foresight import packets_to_barge_ins, packets_to_the_end
from xiaozhi_trio.bench.load import Load, device_id
from xiaozhi_trio.bench.voice import question
from xiaozhi_trio.config.settings import (
    ListeningSettings,
    PlayoutSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.sockets

QUICK = ListeningSettings(end_silence_ms=100)


@asynccontextmanager
async def serving(tmp_path: Path, reply: str) -> AsyncIterator[str]:
    settings = Settings(
        server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0, drain_seconds=1),
        state=StateSettings(directory=str(tmp_path)),
        listening=QUICK,
        playout=PlayoutSettings(end_margin_ms=0),
    )
    parts = EngineSet(
        vad=EngineSlot(LoudnessDetector()),
        asr=EngineSlot(ScriptedRecognizer()),
        llm=EngineSlot(ScriptedLanguageModel([reply])),
        tts=EngineSlot(ScriptedSynthesizer(tone=Tone(ms_per_character=30))),
    )
    server = await Server.build(settings, parts)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        yield f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/"
        server.shutdown.set()


@asynccontextmanager
async def loading() -> AsyncIterator[Load]:
    load = Load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.watch_lag)
        yield load
        await load.leave()
        nursery.cancel_scope.cancel()


async def test_handshakes_are_counted_and_timed(tmp_path) -> None:
    async with serving(tmp_path, "Hi.") as url, loading() as load:
        told = await load.handshakes(url=url, first_device=1, parallel=2, seconds=0.2)
        assert told["counts"]["handshakes"] == len(told["samples"]["handshake"]) > 0
        assert told["samples"]["lag"]
        assert not told["problems"]


async def test_spoken_turns_are_measured(tmp_path) -> None:
    async with serving(tmp_path, "Well, this takes a second.") as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=3, parallel=2)
        told = await load.turns(
            said_ms=[1500],
            within_seconds=0.1,
            ends_with=await packets_to_the_end(QUICK, LoudnessDetector(), question(1500)),
            engines_ms=0,
        )
        assert told["counts"]["answered"] == 3
        assert "failed" not in told["counts"]
        for name in ("own latency", "voice to first frame", "latest frame", "silence in speech"):
            assert len(told["samples"][name]) == 3, name
        assert all(0 < value < 5000 for value in told["samples"]["own latency"])
        assert told["counts"]["frames"] >= 3 * 10
        for name in ("end to stt", "end to tts start", "end to speech"):
            assert len(told["samples"][name]) == 3, name
        assert max(told["samples"]["end to stt"]) < max(told["samples"]["end to speech"])


async def test_a_button_ends_the_turn_of_a_server_nothing_is_known_of(tmp_path) -> None:
    async with serving(tmp_path, "Yes.") as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=1, parallel=1)
        told = await load.turns(said_ms=[600], within_seconds=0, ends_with=None, engines_ms=None)
        assert told["counts"]["answered"] == 1
        assert "own latency" not in told["samples"]


async def test_aborts_are_timed(tmp_path) -> None:
    async with serving(tmp_path, "A story without any end, " * 20) as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=2, parallel=2)
        told = await load.aborts(times=2, after_seconds=0.1)
        assert told["counts"]["aborts"] == 4
        assert told["counts"]["frames after tts stop"] == 0
        assert len(told["samples"]["abort to tts stop"]) == 4


async def test_a_reply_too_short_to_abort_is_told(tmp_path) -> None:
    async with serving(tmp_path, "Hi.") as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=1, parallel=1)
        told = await load.aborts(times=1, after_seconds=5)
        assert told["counts"] == {"failed": 1}
        assert "longer" in told["problems"][0]


async def test_interruptions_by_voice_are_timed(tmp_path) -> None:
    said_ms = [300, 700, 300]
    barge_ins = await packets_to_barge_ins(QUICK, LoudnessDetector(), question(*said_ms))
    assert len(barge_ins) == 1
    async with serving(tmp_path, "A story without any end, " * 20) as url, loading() as load:
        await load.rehearse(said_ms=said_ms)
        await load.connect(url=url, first_device=1, devices=2, parallel=2)
        told = await load.barge_ins(said_ms=said_ms, within_seconds=0, barge_ins=barge_ins)
        assert not told["problems"]
        assert told["counts"]["barge-ins"] == 2
        assert told["counts"]["frames after tts stop"] == 0
        assert all(0 < value < 500 for value in told["samples"]["barge-in to tts stop"])


async def test_a_reply_that_is_not_there_to_be_interrupted_is_told(tmp_path) -> None:
    async with serving(tmp_path, "Hi.") as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=1, parallel=1)
        told = await load.barge_ins(said_ms=[300], within_seconds=0, barge_ins=[1])
        assert told["counts"] == {"failed": 1}
        assert "no reply was being spoken" in told["problems"][0]


async def test_frames_are_counted_both_ways(tmp_path) -> None:
    async with serving(tmp_path, "A story without any end, " * 20) as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=2, parallel=2)
        heard = await load.recite(seconds=0.4)
        said = await load.babble(seconds=0.3)
        assert heard["counts"]["frames"] >= 10
        assert 8 <= said["counts"]["frames"] <= 12


async def test_a_flood_goes_through_and_the_server_stands(tmp_path) -> None:
    async with serving(tmp_path, "Hi.") as url, loading() as load:
        await load.connect(url=url, first_device=1, devices=2, parallel=2)
        told = await load.flood(messages=200)
        assert told["counts"].get("floods", 0) + told["counts"].get("failed", 0) == 2
        await load.leave()
        told = await load.connect(url=url, first_device=9, devices=1, parallel=1)
        assert told["counts"] == {"connected": 1}


async def test_nobody_there_is_a_problem_told() -> None:
    async with loading() as load:
        with trio.socket.socket() as bound:
            await bound.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{bound.getsockname()[1]}/"
            told = await load.connect(url=url, first_device=1, devices=2, parallel=2)
    assert told["counts"] == {"failed": 2}
    assert "ConnectionRefusedError" in told["problems"][0]


def test_device_ids_are_addresses_of_nobody() -> None:
    assert device_id(1) == "02:00:00:00:00:01"
    assert device_id(0x1234) == "02:00:00:00:12:34"
