"""`xiaozhi-trio scenario`: conversations played against a server, and whether they went well."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from xiaozhi_trio.cli.failures import run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.testing.expectations import Voice
    from xiaozhi_trio.testing.scenario import Scenario
    from xiaozhi_trio.testing.scenario_run import Join, Played

_WIDTH: Final = 140
"""Columns where the output is no terminal."""


class ScenarioUnusable(click.ClickException):
    """A file is no scenario. Exit code 2."""

    exit_code = 2


@click.command(short_help="Play conversations and tell whether they went well.")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--url", help="WebSocket address of a running server [default: start one].")
@click.option("--token", default="", help="What to show that server.")
@click.option("--list", "only_list", is_flag=True, help="Name the scenarios that ship.")
@click.option("--timeline", is_flag=True, help="Print what happened also where all went well.")
@click.option(
    "--tolerance-ms",
    type=click.IntRange(0, 60_000),
    default=150,
    show_default=True,
    help="What a busy machine and a network add to every limit.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each scenario.")
@common_options
@pass_options
def scenario(
    options: CommonOptions,
    files: tuple[str, ...],
    url: str | None,
    token: str,
    only_list: bool,
    timeline: bool,
    tolerance_ms: int,
    as_json: bool,
) -> None:
    """Play FILEs in real time; one may also be the name of a scenario that ships.

    Without files all that ship are played. Without --url each gets a server of its own,
    with scripted engines and speech made of tones. A running server is spoken to by the
    configured speech engines, and what only scripted engines can show is not checked.

    The exit status is 0 where all went well, 1 where something did not, 2 where a file
    cannot be used.
    """
    from rich.console import Console

    if only_list:
        for file in _shipped():
            click.echo(f"{file.stem:32} {_read([file])[0][1].name}")
        return
    scenarios = _read([_found(name) for name in files] or _shipped())
    settings = options.load(quiet=True)
    shown = Console(width=None if Console().is_terminal else _WIDTH)
    report = _Report(shown, as_json=as_json, timeline=timeline)
    if url is None:
        run(_play_own, scenarios, report, tolerance_ms)
    else:
        run(_play_running, scenarios, report, tolerance_ms, settings, url, token)
    report.end()


class _Report:
    """What is told of each scenario."""

    def __init__(self, console: Console, *, as_json: bool, timeline: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._timeline = timeline
        self._played = 0
        self._failed = 0

    def skipped(self, file: Path, scenario: Scenario, reason: str) -> None:
        """It cannot be played here."""
        if self._as_json:
            body = {"file": str(file), "name": scenario.name, "outcome": reason}
            click.echo(json.dumps(body, ensure_ascii=False))
        else:
            self._console.print(f"-      {scenario.name}: {reason}", markup=False)

    def tell(self, file: Path, played: Played) -> None:
        """Print how it went."""
        self._played += 1
        self._failed += bool(played.failures)
        if self._as_json:
            click.echo(json.dumps(_as_json(file, played), ensure_ascii=False))
            return
        from xiaozhi_trio.testing.expectations import Outcome
        from xiaozhi_trio.testing.timeline_table import timeline_table

        word = "FAILED" if played.failures else "ok    "
        self._console.print(f"{word} {played.scenario.name}", markup=False)
        for verdict in played.verdicts:
            if verdict.outcome is not Outcome.HELD:
                text = f"       {verdict.expectation}: {verdict.outcome.value}: {verdict.reason}"
                self._console.print(text, markup=False)
        if played.failures or self._timeline:
            self._console.print(timeline_table(played.timeline))

    def end(self) -> None:
        """Sum up, and end the process where something failed."""
        if not self._as_json:
            self._console.print(f"{self._played} played, {self._failed} failed")
        if self._failed:
            raise click.exceptions.Exit(1)


def _as_json(file: Path, played: Played) -> dict[str, Any]:
    began = played.timeline.began_at
    return {
        "file": str(file),
        "name": played.scenario.name,
        "outcome": "failed" if played.failures else "ok",
        "expectations": [
            {
                "expectation": verdict.expectation,
                "outcome": verdict.outcome.value,
                "reason": verdict.reason,
            }
            for verdict in played.verdicts
        ],
        "timeline": [
            {
                "ms": round((event.at - began) * 1000, 1),
                "side": event.side.value,
                "kind": event.kind,
                "text": event.text,
            }
            for event in played.timeline.happenings
        ],
    }


def _shipped() -> Sequence[Path]:
    folder = Path(str(resources.files("xiaozhi_trio.testing") / "scenarios"))
    return sorted(folder.glob("*.toml"))


def _found(name: str) -> Path:
    file = Path(name)
    if file.suffix == ".toml" or file.exists():
        return file
    shipped = {file.stem: file for file in _shipped()}
    if name not in shipped:
        raise ScenarioUnusable(
            f"{name}: no file and no scenario that ships; --list names those that do"
        )
    return shipped[name]


def _read(files: Sequence[Path]) -> Sequence[tuple[Path, Scenario]]:
    """Every file, checked before the first is played. Raises `ScenarioUnusable`."""
    import cattrs

    from xiaozhi_trio.cli.scenario_servers import scenario_settings
    from xiaozhi_trio.config.structuring import name_of, unfit_values
    from xiaozhi_trio.testing.scenario_file import ScenarioFileError, read_scenario

    scenarios = []
    problems: list[str] = []
    for file in files:
        try:
            scenario = read_scenario(file)
            scenario_settings(scenario)
        except ScenarioFileError as error:
            problems.append(str(error))
        except cattrs.ClassValidationError as error:
            problems += [
                f"{file}: {name_of(('server', *path))}: {unfit.message}; {unfit.fix}"
                for path, unfit in unfit_values(error)
            ]
        else:
            scenarios.append((file, scenario))
    if problems:
        raise ScenarioUnusable("\n".join(problems))
    return scenarios


async def _play_own(
    scenarios: Sequence[tuple[Path, Scenario]], report: _Report, tolerance_ms: int
) -> None:
    from xiaozhi_trio.cli.scenario_servers import own_server
    from xiaozhi_trio.testing.expectations import ToneVoice

    await _play_all(scenarios, report, own_server, ToneVoice(), tolerance_ms, foreign=False)


async def _play_running(
    scenarios: Sequence[tuple[Path, Scenario]],
    report: _Report,
    tolerance_ms: int,
    settings: Settings,
    url: str,
    token: str,
) -> None:
    from xiaozhi_trio.cli.scenario_servers import running_server
    from xiaozhi_trio.cli.scenario_voice import real_voice

    playable = []
    for file, scenario in scenarios:
        if scenario.server or scenario.engines.goes_wrong:
            report.skipped(file, scenario, "not playable here: it sets the server up")
        elif scenario.stops_server:
            report.skipped(file, scenario, "not playable here: it stops the server")
        elif scenario.engines.calls_tools:
            report.skipped(
                file, scenario, "not playable here: it tells the language model what to call"
            )
        else:
            playable.append((file, scenario))
    if playable:
        async with real_voice(settings) as voice:
            join = running_server(url, token)
            await _play_all(playable, report, join, voice, tolerance_ms, foreign=True)


async def _play_all(
    scenarios: Sequence[tuple[Path, Scenario]],
    report: _Report,
    join: Join,
    voice: Voice,
    tolerance_ms: int,
    *,
    foreign: bool,
) -> None:
    from xiaozhi_trio.testing.scenario_run import play

    for file, scenario in scenarios:
        report.tell(
            file,
            await play(scenario, join, voice=voice, foreign=foreign, tolerance_ms=tolerance_ms),
        )
