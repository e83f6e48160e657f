"""`xiaozhi-trio bench`: figures of this server, or of any other, with simulated devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xiaozhi_trio.cli.failures import CommandFailed, run

if TYPE_CHECKING:
    from xiaozhi_trio.bench.run import Result

_SCENARIOS: Final = ("connect", "idle", "burst", "spread", "frames", "abort", "hostile")


@click.command(short_help="Measure the server with simulated devices.")
@click.argument("scenarios", nargs=-1, type=click.Choice(_SCENARIOS))
@click.option("--url", help="WebSocket address of a running server [default: start one].")
@click.option("--against", metavar="URL", help="Measure this server too, in turns.")
@click.option("--devices", type=click.IntRange(1, 20_000), help="Devices in every scenario.")
@click.option("--rounds", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--chunk-ms",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Audio in one piece of the scripted speech synthesis; 0 gives whole sentences.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path, allow_dash=True),
    help="Write every round to this file, - for stdout in place of the table.",
)
def bench(
    scenarios: tuple[str, ...],
    url: str | None,
    against: str | None,
    devices: int | None,
    rounds: int,
    processes: int,
    chunk_ms: int,
    json_file: Path | None,
) -> None:
    """Play SCENARIOS (all of them by default) and print the figures. Linux only.

    Without --url a server is started for each scenario, with real voice detection and
    Opus and with scripted engines. The exit status says whether there are figures, not
    whether they are good.
    """
    from rich.console import Console

    from xiaozhi_trio.bench import report
    from xiaozhi_trio.bench.run import Plan
    from xiaozhi_trio.bench.run import run as play
    from xiaozhi_trio.bench.scenarios import SCENARIOS
    from xiaozhi_trio.bench.script import Script

    plan = Plan(
        scenarios=[SCENARIOS[name] for name in scenarios or _SCENARIOS],
        url=url,
        against=against,
        devices=devices,
        rounds=rounds,
        processes=processes,
        script=Script(chunk_ms=chunk_ms),
    )
    results = run(play, plan, _tell)
    if all(result.failure for result in results):
        raise CommandFailed("no scenario gave any figures; the reasons stand above")
    if json_file is None or str(json_file) != "-":
        Console(width=None if Console().is_terminal else 140).print(report.table(results))
    if json_file is not None:
        _write(json_file, report.as_json(results))


def _tell(result: Result) -> None:
    click.echo(
        f"{result.target}: {result.scenario}, round {result.round}: {result.failure or 'done'}",
        err=True,
    )


def _write(file: Path, text: bytes) -> None:
    if str(file) == "-":
        click.echo(text)
        return
    try:
        file.write_bytes(text + b"\n")
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}") from error
