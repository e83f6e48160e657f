from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trustme

from xiaozhi_trio.cli.folders import obstacle_to_writing
from xiaozhi_trio.engines import registry
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.registry import EngineKind

    RunCommand = Callable[..., Result]


class IdleEngine:
    closed = 0

    async def aclose(self) -> None:
        IdleEngine.closed += 1


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that are made of nothing, but for one called `missing`."""
    IdleEngine.closed = 0

    def build_engine(kind: EngineKind, settings: Settings, models: object) -> IdleEngine:
        name = getattr(settings, kind.value).engine
        if name == "missing":
            raise EngineError(
                "no engine has this name", engine=name, category=EngineErrorCategory.UNAVAILABLE
            )
        return IdleEngine()

    monkeypatch.setattr(registry, "build_engine", build_engine)


def test_the_defaults_are_right(run_command: RunCommand, tmp_path: Path) -> None:
    result = run_command("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "the defaults: OK\n"
        "  WebSocket       ws://0.0.0.0:8000/xiaozhi/v1/\n"
        "  OTA             http://0.0.0.0:8003/xiaozhi/ota/\n"
        "  engines         vad silero, asr whisper, llm llama, tts bilingual (kokoro + hibari)\n"
        f"  models          {tmp_path}/models "
        "(to be fetched: silero-vad, whisper-base, qwen2.5-0.5b, kokoro)\n"
        f"  state           {tmp_path}/state\n"
        "  authentication  off, any device may connect\n"
    )
    assert IdleEngine.closed == 4
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_told(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bad.pem").write_text("no certificate")
    (tmp_path / "config.toml").write_text(
        '[server]\ntls_certificate = "bad.pem"\ntls_key = "bad.pem"\n'
        '[models]\ndirectory = "file/models"\n[state]\ndirectory = "file"\n'
        '[authentication]\nenabled = true\n[asr]\nengine = "missing"\n'
    )
    result = run_command("check")
    assert (result.exit_code, result.stdout) == (2, "")
    headings = [line for line in result.stderr.splitlines() if line.startswith("config.toml")]
    assert headings == [
        "config.toml  [server] tls_certificate",
        "config.toml  [models] directory",
        "config.toml  [state] directory",
        "config.toml  [asr] engine",
    ]
    assert "missing: no engine has this name (unavailable)" in result.stderr
    assert f"file/models cannot be used: {tmp_path}/file is a file" in result.stderr


def test_a_fallback_that_is_not_there_is_told(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[llm]\nengine = "openai"\nfallback = ["lama"]\n')
    result = run_command("check")
    assert result.exit_code == 2
    assert "config.toml  [llm] fallback" in result.stderr
    assert "known are llama, openai" in result.stderr


def test_fallback_engines_are_checked_too(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[llm]\nfallback = ["openai"]\n[tts]\nengine = "openai"\nfallback = ["bilingual"]\n'
    )
    result = run_command("check")
    assert result.exit_code == 0
    assert (
        "engines         vad silero, asr whisper, llm llama or openai, "
        "tts openai or bilingual (kokoro + hibari)\n"
    ) in result.stdout
    assert "kokoro" in result.stdout


def test_named_engines_are_shown_with_what_they_are(
    run_command: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(
        '[llm]\nengine = "cloud"\nfallback = ["big"]\n'
        '[llm.cloud]\nengine = "openai"\napi_key = "sk-hidden"\n'
        '[llm.big]\nengine = "llama"\nmodel = "qwen2.5-1.5b"\n'
        '[tts]\nengine = "duo"\n[tts.duo]\nengine = "bilingual"\nchinese = "hibari"\n'
    )
    result = run_command("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        "engines         vad silero, asr whisper, llm cloud (openai) or big (llama), "
        "tts duo (hibari + hibari)\n"
    ) in result.stdout
    assert "(to be fetched: silero-vad, whisper-base, qwen2.5-1.5b)" in result.stdout
    assert "hidden" not in result.stdout


def test_a_named_engine_that_cannot_be_is_told_with_its_line(
    run_command: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[llm.cloud]\nengine = "opnai"\n')
    result = run_command("check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "config.toml:2  [llm.cloud] engine" in result.stderr


def test_a_certificate_with_its_key_is_right(run_command: RunCommand, tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("voice.example.com")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    (tmp_path / "config.toml").write_text(
        '[server]\ntls_certificate = "both.pem"\ntls_key = "both.pem"\n'
    )
    result = run_command("check")
    assert result.exit_code == 0
    assert "wss://0.0.0.0:8000/xiaozhi/v1/" in result.stdout


def test_tables_that_no_engine_reads_are_noted(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[asr.mine]\nx = 1\n")
    result = run_command("check")
    assert result.exit_code == 0
    assert result.stderr == "Note: [asr.mine] is for an engine that is not installed.\n"


def test_authentication_needs_a_secret_or_a_place_for_one(
    run_command: RunCommand, tmp_path: Path
) -> None:
    (tmp_path / "state").touch()
    (tmp_path / "config.toml").write_text('[authentication]\nenabled = true\nsecret = "given"\n')
    result = run_command("check")
    assert result.exit_code == 0
    assert "authentication  on\n" in result.stdout


AGENTS = """
[[agents]]
name = "grandma"
devices = ["aa:bb:cc:dd:ee:01", "aa:bb:cc:*", "a", "b"]
[agents.listening]
end_silence_ms = 1200
[agents.conversation]
greeting_zh = ""

[[agents]]
name = "guest"
devices = ["*"]
[agents.tools]
device = true
"""


def test_agents_are_shown(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(AGENTS)
    result = run_command("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.endswith(
        "  agent           grandma: aa:bb:cc:dd:ee:01, aa:bb:cc:*, a and 1 more; "
        "own listening, conversation\n"
        "  agent           guest: *; own nothing\n"
    )


def test_the_end_of_turn_of_each_agent_is_checked(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f'[listening]\nend_of_turn = "psychic"\n{AGENTS}[agents.listening]\nend_of_turn = "odd"\n'
    )
    result = run_command("check")
    assert (result.exit_code, result.stdout) == (2, "")
    headings = [line for line in result.stderr.splitlines() if line.startswith("config.toml")]
    assert headings == [
        "config.toml  [listening] end_of_turn",
        'config.toml  [agents.listening] end_of_turn of "guest"',
    ]
    assert 'came "odd", expected one of manual' in result.stderr


def test_a_mistake_in_an_agent_is_told(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(AGENTS.replace("1200", "12"))
    result = run_command("check")
    assert result.exit_code == 2
    assert "config.toml:6  [agents.listening] end_silence_ms" in result.stderr


class TestObstacleToWriting:
    def test_none_in_a_folder_that_can_be_made(self, tmp_path: Path) -> None:
        assert obstacle_to_writing(tmp_path / "a" / "b") is None

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        obstacle = obstacle_to_writing(tmp_path / "a" / "b")
        assert obstacle == f"{tmp_path / 'a'} is a file, not a folder"

    def test_a_folder_of_somebody_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert obstacle_to_writing(tmp_path) == f"{tmp_path} cannot be written by this user"
