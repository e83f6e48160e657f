from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from rich.console import Console

from xiaozhi_trio.cli.download_bars import DownloadBars
from xiaozhi_trio.cli.needed_models import needed_models
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.engines.catalogue import Catalogue
from xiaozhi_trio.engines.model_store import (
    FileVerdict,
    ModelProgress,
    ModelState,
    ModelStore,
    ModelUnavailableError,
    Presence,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    RunCommand = Callable[..., Result]

DEFAULT_MODELS = ["silero-vad", "whisper-base", "qwen2.5-0.5b", "kokoro"]


@attrs.define
class Fetched:
    """What the commands asked of the store, and what it is to answer."""

    models: list[str] = attrs.field(factory=list)
    directories: set[Path] = attrs.field(factory=set)
    unavailable: bool = False
    damaged: bool = False


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Replaces what the store does with the network and the disk."""
    record = Fetched()

    async def ensure(
        self: ModelStore, name: str, progress: Callable[[ModelProgress], None] | None = None
    ) -> Path:
        if record.unavailable:
            raise ModelUnavailableError(name, "no source has it; check the network")
        assert progress is not None
        for done in (0, 5, 10):
            progress(ModelProgress(name, "weights [b]", done, 10, "hub"))
        record.models.append(name)
        record.directories.add(self.directory)
        return self.directory / name

    def state(self: ModelStore, name: str) -> ModelState:
        present = {"kokoro": Presence.PRESENT, "whisper-base": Presence.PARTIAL}
        return ModelState(name, present.get(name, Presence.MISSING), 60, 100)

    async def verify(self: ModelStore, name: str) -> list[FileVerdict]:
        verdict = Verdict.DAMAGED if record.damaged else Verdict.SOUND
        return [FileVerdict("weights", verdict, "too short" if record.damaged else "")]

    monkeypatch.setattr(ModelStore, "ensure", ensure)
    monkeypatch.setattr(ModelStore, "state", state)
    monkeypatch.setattr(ModelStore, "verify", verify)
    return record


class TestNeededModels:
    @pytest.mark.parametrize(
        ("document", "models"),
        [
            ("", DEFAULT_MODELS),
            (
                '[vad]\nengine = "mine"\n[asr]\nengine = "openai"\n[llm]\nengine = "openai"\n'
                '[tts]\nengine = "hibari"',
                [],
            ),
            (
                '[asr.whisper]\nmodel = "whisper-small"\n[llm.llama]\nmodel = "qwen2.5-1.5b"\n'
                '[tts]\nengine = "kokoro"\n[tts.kokoro]\nvoice_zh = "zm_yunxi"',
                ["silero-vad", "whisper-small", "qwen2.5-1.5b", "kokoro", "kokoro-voices-extra"],
            ),
            ('[tts.bilingual]\nchinese = "openai"', DEFAULT_MODELS[:-1]),
            (
                '[asr]\nengine = "openai"\nfallback = ["whisper"]\n'
                '[llm]\nengine = "openai"\nfallback = ["mine", "llama"]\n'
                '[tts]\nengine = "openai"\nfallback = ["bilingual"]',
                DEFAULT_MODELS,
            ),
            (
                '[vad]\nengine = "ear"\n[vad.ear]\nengine = "silero"\n'
                '[asr]\nengine = "cloud"\nfallback = ["small"]\n[asr.cloud]\nengine = "openai"\n'
                '[asr.small]\nengine = "whisper"\nmodel = "whisper-small"\n'
                '[llm]\nengine = "big"\nfallback = ["llama"]\n'
                '[llm.big]\nengine = "llama"\nmodel = "qwen2.5-1.5b"\n'
                '[llm.unused]\nengine = "llama"\nmodel = "qwen-unused"\n'
                '[tts]\nengine = "duo"\n[tts.duo]\nengine = "bilingual"\nchinese = "slow"\n'
                '[tts.slow]\nengine = "kokoro"\nvoice_zh = "zm_yunxi"',
                [
                    "silero-vad",
                    "whisper-small",
                    "qwen2.5-1.5b",
                    "qwen2.5-0.5b",
                    "kokoro",
                    "kokoro-voices-extra",
                ],
            ),
        ],
    )
    def test_they_follow_from_the_engines(self, document: str, models: list[str]) -> None:
        settings = parse_settings(document, file="c.toml", environment={})
        assert needed_models(settings, Catalogue.load()) == models


def test_list_shows_every_model(run_command: RunCommand, fetched: Fetched, tmp_path: Path) -> None:
    result = run_command("models", "list")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *lines = result.stdout.splitlines()
    assert first == str(tmp_path / "models")
    words = {line.split()[0]: line.split()[3:6] for line in lines}
    assert set(words) == set(Catalogue.load().models)
    assert words["kokoro"][:2] == ["present", "needed"]
    assert words["whisper-base"] == ["60", "%", "here"]
    assert words["qwen2.5-1.5b"][0] == "missing"
    assert "needed" not in words["qwen2.5-1.5b"]


def test_pull_fetches_what_is_needed(
    run_command: RunCommand, fetched: Fetched, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[models]\ndirectory = "here"\n')
    result = run_command("models", "pull")
    assert result.exit_code == 0
    assert fetched.models == DEFAULT_MODELS
    assert fetched.directories == {Path("here")}


def test_pull_fetches_what_is_named(run_command: RunCommand, fetched: Fetched) -> None:
    result = run_command("models", "pull", "qwen2.5-1.5b", "kokoro", "kokoro")
    assert result.exit_code == 0
    assert fetched.models == ["qwen2.5-1.5b", "kokoro"]
    assert "fetching kokoro/weights [b] (10 bytes)" in result.stderr.splitlines()


def test_pull_without_embedded_engines(
    run_command: RunCommand, fetched: Fetched, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(
        '[vad]\nengine = "mine"\n[asr]\nengine = "openai"\n[llm]\nengine = "openai"\n'
        '[tts]\nengine = "openai"'
    )
    result = run_command("models", "pull")
    assert (result.exit_code, fetched.models) == (0, [])
    assert "needs no models" in result.stdout


@pytest.mark.parametrize("command", ["pull", "verify"])
def test_an_unknown_model_is_told_with_the_known_ones(
    run_command: RunCommand, fetched: Fetched, command: str
) -> None:
    result = run_command("models", command, "whisper-huge")
    assert (result.exit_code, fetched.models) == (1, [])
    assert "whisper-huge" in result.stderr
    assert "whisper-base" in result.stderr


def test_a_model_that_cannot_be_had(run_command: RunCommand, fetched: Fetched) -> None:
    fetched.unavailable = True
    result = run_command("models", "pull")
    assert result.exit_code == 1
    assert result.stderr.endswith(
        "Error: models: model silero-vad: no source has it; check the network (unavailable)\n"
    )


def test_verify_hashes_what_is_here(run_command: RunCommand, fetched: Fetched) -> None:
    result = run_command("models", "verify")
    assert (result.exit_code, result.stdout) == (
        0,
        "whisper-base/weights: sound\nkokoro/weights: sound\n",
    )


def test_verify_tells_what_is_damaged(run_command: RunCommand, fetched: Fetched) -> None:
    fetched.damaged = True
    result = run_command("models", "verify", "kokoro")
    assert (result.exit_code, result.stdout) == (1, "kokoro/weights: damaged: too short\n")
    assert "run: xiaozhi-trio models pull kokoro" in result.stderr


def test_verify_with_nothing_here(
    run_command: RunCommand, fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ModelStore, "state", lambda self, name: ModelState(name, Presence.MISSING, 0, 1)
    )
    result = run_command("models", "verify")
    assert result.exit_code == 0
    assert result.stdout.startswith("There are no models in ")


def test_a_terminal_gets_bars() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with DownloadBars(console) as bars:
        bars.advance(ModelProgress("kokoro", "weights", 5, 10, "hub"))
        bars.say("said [b]above[/b]")
    shown = console.file.getvalue()
    assert "kokoro/weights" in shown
    assert "5/10 bytes" in shown
    assert "said [b]above[/b]" in shown
