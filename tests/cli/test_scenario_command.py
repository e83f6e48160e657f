"""The command that plays conversations."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from xiaozhi_trio.cli import scenario_voice
from xiaozhi_trio.cli.scenario_servers import own_server, running_server
from xiaozhi_trio.cli.scenario_voice import RealVoice
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.testing import ScriptedRecognizer, ScriptedSynthesizer, Tone
from xiaozhi_trio.testing.expectations import Outcome, ToneVoice
from xiaozhi_trio.testing.scenario_engines import EnginesScript, ScenarioEngines
from xiaozhi_trio.testing.scenario_file import parse_scenario
from xiaozhi_trio.testing.scenario_run import play
from xiaozhi_trio.testing.timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path

SHORT = """
name = "silence is golden"
[[steps]]
connect = true
[[steps]]
send = { type = "abort" }
expect = [{ event = "tts stop", since = "start", within_ms = 2000 }]
[[expect]]
asked = { llm = 0, tts = 0 }
"""


@pytest.fixture
def short(tmp_path: Path) -> str:
    file = tmp_path / "short.toml"
    file.write_text(SHORT, "utf-8")
    return str(file)


def test_list_names_what_ships(run_command) -> None:
    result = run_command("scenario", "--list")
    assert result.exit_code == 0
    assert "turn_auto " in result.output
    assert "a spoken question is answered in speech" in result.output


@pytest.mark.sockets
def test_a_conversation_that_goes_well(run_command, short) -> None:
    result = run_command("scenario", short, "--timeline")
    assert result.exit_code == 0, result.output
    assert "ok     silence is golden" in result.output
    assert "1 played, 0 failed" in result.output
    assert "sent abort" in result.output


@pytest.mark.sockets
def test_a_conversation_that_fails_prints_both_sides(run_command, tmp_path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(SHORT.replace("llm = 0", "llm = 1"), "utf-8")
    result = run_command("scenario", str(bad))
    assert result.exit_code == 1
    assert "FAILED silence is golden" in result.output
    assert "asked = {'llm': 1, 'tts': 0}: failed: llm was asked 0 times" in result.output
    assert "sent abort" in result.output


@pytest.mark.sockets
def test_json_is_one_line_a_scenario(run_command, short) -> None:
    result = run_command("scenario", short, "--json")
    (body,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert body["outcome"] == "ok"
    assert [each["outcome"] for each in body["expectations"]] == ["held", "held"]
    assert any(event["kind"] == "tts stop" for event in body["timeline"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SHORT.replace("connect = true", "connect = 1"), "steps[1].connect: came 1"),
        (
            SHORT + "[server.listening]\nend_silence_ms = 'soon'",
            "[server.listening] end_silence_ms",
        ),
        (SHORT + "[server]\nserver = 3", "[server.server] server"),
    ],
)
def test_a_file_that_is_no_scenario_ends_with_2(run_command, tmp_path, text, complaint) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text, "utf-8")
    result = run_command("scenario", str(file))
    assert result.exit_code == 2
    assert complaint in result.output


def test_an_unknown_name_ends_with_2(run_command) -> None:
    result = run_command("scenario", "nothing_of_the_kind")
    assert result.exit_code == 2
    assert "--list names those that do" in result.output


def test_what_sets_the_server_up_is_not_played_against_a_running_one(run_command) -> None:
    result = run_command("scenario", "llm_hangs", "asr_fails", "--url", "ws://127.0.0.1:9/")
    assert result.exit_code == 0
    assert result.output.count("not playable here") == 2
    result = run_command("scenario", "tool_volume", "--url", "ws://127.0.0.1:9/")
    assert "it tells the language model what to call" in result.output
    result = run_command("scenario", "stop_speaking", "--url", "ws://127.0.0.1:9/")
    assert "it stops the server" in result.output
    as_json = run_command("scenario", "llm_hangs", "--url", "ws://127.0.0.1:9/", "--json")
    assert "not playable here" in json.loads(as_json.stdout)["outcome"]


@pytest.mark.sockets
def test_a_running_server_is_spoken_to_with_the_real_voice(
    run_command, short, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def tone_voice(settings: Settings):
        await trio.lowlevel.checkpoint()
        yield ToneVoice()

    monkeypatch.setattr(scenario_voice, "real_voice", tone_voice)
    result = run_command("scenario", short, "--url", "ws://127.0.0.1:9/")
    assert result.exit_code == 1
    assert "not connected" in result.output


@pytest.mark.sockets
async def test_a_running_server_is_played_against_and_left_running() -> None:
    scenario = parse_scenario(SHORT, file="short.toml")
    async with (
        own_server(scenario, ScenarioEngines.of(EnginesScript(), Timeline())) as dial_own,
        dial_own() as link,
    ):
        peer = link._connected.socket.getpeername()
        join = running_server(f"ws://127.0.0.1:{peer[1]}/xiaozhi/v1/", "")
        for _ in range(2):
            played = await play(scenario, join, foreign=True, tolerance_ms=500)
            assert not played.failures
            assert played.verdicts[-1].outcome is Outcome.UNCHECKED


@pytest.mark.sockets
async def test_a_server_that_refuses_is_told_on_the_timeline() -> None:
    scenario = parse_scenario(SHORT, file="short.toml")
    async with (
        own_server(scenario, ScenarioEngines.of(EnginesScript(), Timeline())) as dial_own,
        dial_own() as link,
    ):
        peer = link._connected.socket.getpeername()
        join = running_server(f"ws://127.0.0.1:{peer[1]}/elsewhere", "")
        short_wait = SHORT.replace("within_ms = 2000", "within_ms = 1")
        played = await play(parse_scenario(short_wait, file="a"), join, foreign=True)
        assert "404" in next(played.timeline.since(0, "not connected")).text


@pytest.mark.sockets
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_device_can_drop_its_connection(how: str) -> None:
    scenario = parse_scenario(
        f"""
        name = "gone and back"
        [[steps]]
        connect = true
        [[steps]]
        disconnect = "{how}"
        [[steps]]
        wait_ms = 100
        [[steps]]
        connect = true
        expect = [{{ event = "hello", since = "start" }}]
        """,
        file="gone.toml",
    )
    assert not (await play(scenario, own_server, tolerance_ms=1000)).failures


async def test_the_real_voice_speaks_at_the_level_and_rate_of_a_microphone() -> None:
    voice = RealVoice(ScriptedSynthesizer(tone=Tone(level=2000)), ScriptedRecognizer("I see."))
    pcm = await voice.utter("hello", 9000)
    assert len(pcm) == pytest.approx(16_000 * 2 * 0.3, rel=0.01)
    assert np.abs(np.frombuffer(pcm, "<i2").astype(int)).max() == pytest.approx(9000, abs=1)
    assert await voice.utter("", 9000) == b""
    assert await voice.understand(pcm) == "I see."
    assert await voice.understand(b"") == ""


async def test_the_real_voice_is_of_the_configured_engines_and_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = {"tts": ScriptedSynthesizer(), "asr": ScriptedRecognizer()}
    monkeypatch.setattr(
        scenario_voice, "build_engine", lambda kind, settings, models: engines[kind.value]
    )
    async with scenario_voice.real_voice(Settings()) as voice:
        assert not voice.is_exact
    assert all(engine.is_closed for engine in engines.values())


async def test_engines_that_cannot_be_loaded_are_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from xiaozhi_trio.engines.errors import EngineErrorCategory

    error = EngineError("no", engine="tts", category=EngineErrorCategory.UNAVAILABLE)
    engines = {"tts": ScriptedSynthesizer(load_error=error), "asr": ScriptedRecognizer()}
    monkeypatch.setattr(
        scenario_voice, "build_engine", lambda kind, settings, models: engines[kind.value]
    )
    with pytest.raises(EngineError):
        async with scenario_voice.real_voice(Settings()):
            pytest.fail("it was loaded")
    assert engines["asr"].is_closed
