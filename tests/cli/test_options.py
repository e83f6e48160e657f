from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner
from loguru import logger

import xiaozhi_trio
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


@click.group()
@common_options
def probe() -> None:
    """A program with one command that tells what it was given."""


@probe.command()
@common_options
@pass_options
def told(options: CommonOptions) -> None:
    click.echo(f"{options.config} {options.log_level} {options.json_logs}")


@probe.command()
@common_options
@pass_options
def logs(options: CommonOptions) -> None:
    options.load(quiet=True)
    logger.bind(value="hunter2").warning("warned")
    logger.info("informed")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["told"], "None None None"),
        (["--config", "a.toml", "--json-logs", "told"], "a.toml None True"),
        (["told", "--log-level", "debug", "--text-logs"], "None DEBUG False"),
        (["--config", "a.toml", "told", "--config", "b.toml"], "b.toml None None"),
        (["--log-level", "ERROR", "told", "--config", "b.toml"], "b.toml ERROR None"),
    ],
)
def test_options_count_before_and_after_the_command(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(probe, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{told}\n")


@pytest.mark.parametrize("arguments", [["--version"], ["told", "--version"]])
def test_the_version_is_told_everywhere(arguments: list[str]) -> None:
    result = CliRunner().invoke(probe, arguments)
    assert result.stdout == f"xiaozhi-trio, version {xiaozhi_trio.__version__}\n"


def log(*arguments: str) -> Result:
    return CliRunner().invoke(probe, ["logs", *arguments])


def test_a_quiet_command_logs_warnings_only() -> None:
    assert "warned" in log().stderr
    assert "informed" not in log().stderr
    assert "informed" in log("--log-level", "info").stderr


def test_json_logs_can_be_asked_for() -> None:
    assert log("--json-logs").stderr.startswith('{"ts": ')


def test_the_secrets_of_the_configuration_are_kept_out_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[llm.openai]\napi_key = "hunter2"\n')
    assert "value=***" in log("--config", "c.toml").stderr


def test_a_wrong_configuration_is_told_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[audio]\nbitrate = "high"\nbitrates = 1\n')
    result = log("--config", "c.toml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "The configuration has 2 problems:\n"
        "\n"
        "c.toml:2  [audio] bitrate\n"
        '    came the text "high", expected a whole number from 6000 to 128000 bit/s\n'
        "    Fix: the default is bitrate = 24000\n"
        "\n"
        "c.toml:3  [audio] bitrates\n"
        "    unknown name\n"
        "    Fix: did you mean [audio] bitrate?\n"
    )


def test_one_problem_is_one(tmp_path: Path) -> None:
    result = log("--config", "missing.toml")
    assert result.stderr == (
        "The configuration has a problem:\n"
        "\n"
        "missing.toml\n"
        "    there is no such file\n"
        "    Fix: check the name, or leave it out to run with the defaults\n"
    )


def test_help_imports_neither_the_event_loop_nor_the_settings() -> None:
    code = (
        "import sys; from xiaozhi_trio.cli.command import program; "
        "program(['--help'], standalone_mode=False); "
        "heavy = {'trio', 'loguru', 'cattrs', 'rich', 'numpy', 'httpx'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    for command in ("serve", "check", "token", "models"):
        assert f"\n  {command} " in finished.stdout
