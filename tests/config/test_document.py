from __future__ import annotations

from pathlib import Path

import pytest

from xiaozhi_trio.config.document import config_toml, generated_files, main, reference_page
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.settings import Settings

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["config.toml", "docs/configuration.md"])
def test_the_committed_file_is_the_generated_one(name: str) -> None:
    committed = (TOP / name).read_text(encoding="utf-8")
    assert committed == generated_files()[name], (
        "the settings changed: run python -m xiaozhi_trio.config.document"
    )


def test_the_shipped_file_changes_nothing() -> None:
    assert parse_settings(config_toml(), file="config.toml", environment={}) == Settings()


def test_every_setting_stands_below_its_reason() -> None:
    document = config_toml()
    assert (
        "# Silence that ends a turn, in audio time; raise it for slow speakers.\n"
        "# A whole number from 100 to 5000 ms.\n"
        "end_silence_ms = 600\n"
    ) in document
    assert "# One of 8000, 12000, 16000, 24000, 48000 Hz.\nsample_rate = 24000\n" in document
    assert "\nothers" not in document


def test_secrets_are_empty() -> None:
    assert '\nsecret = ""\n' in config_toml()
    assert '| `api_key` | `""` | a secret |' in reference_page()


def test_the_page_has_a_row_for_each_setting() -> None:
    row = (
        "| `end_silence_ms` | `600` | a whole number from 100 to 5000 ms "
        "| Silence that ends a turn, in audio time; raise it for slow speakers. |"
    )
    assert row in reference_page().splitlines()


def test_both_files_are_written(tmp_path: Path) -> None:
    main([str(tmp_path)])
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == set(generated_files())
