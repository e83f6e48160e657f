"""`xiaozhi-trio bench`: figures of this server, or of any other, with simulated devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from xiaozhi_trio.cli.failures import CommandFailed, run

if TYPE_CHECKING:
    from xiaozhi_trio.bench.run import Result
    from xiaozhi_trio.bench.script import Script

_SCENARIOS: Final = (
    "connect",
    "idle",
    "burst",
    "spread",
    "frames",
    "abort",
    "hostile",
    "turns",
    "turns-spread",
    "turns-waiting",
    "turns-spread-waiting",
    "impatient",
    "hesitant",
    "hesitant-waiting",
    "barge-in",
)
_ENGINES: Final = ("scripted", "openai")


def _websocket_url(
    _context: click.Context, _parameter: click.Parameter, url: str | None
) -> str | None:
    """Check an address before minutes are spent on it."""
    if url is None:
        return None
    try:
        address = urlsplit(url)
        usable = address.scheme == "ws" and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter(
            f"{url!r} is no address of a WebSocket without TLS; "
            "give one such as ws://127.0.0.1:8000/xiaozhi/v1/"
        )
    return url


@click.command(short_help="Measure the server with simulated devices.")
@click.argument("scenarios", nargs=-1, type=click.Choice(_SCENARIOS))
@click.option(
    "--url",
    callback=_websocket_url,
    help="WebSocket address of a running server [default: start one].",
)
@click.option(
    "--against", metavar="URL", callback=_websocket_url, help="Measure this server too, in turns."
)
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
    "--engines",
    type=click.Choice(_ENGINES),
    default=_ENGINES[0],
    show_default=True,
    help="Of the server started here: scripted ones within it, or its HTTP ones and a stand-in.",
)
@click.option(
    "--stand-in",
    "stand_in_port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    help="Only serve the OpenAI-compatible stand-in, for servers started by hand; 0: any port.",
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
    engines: str,
    stand_in_port: int | None,
    json_file: Path | None,
) -> None:
    """Play SCENARIOS (all of them by default) and print the figures. Linux only.

    Without --url a server is started for each scenario, with real voice detection and
    Opus and with scripted engines. The exit status says whether there are figures, not
    whether they are good.
    """
    from xiaozhi_trio.bench.script import Script

    script = Script(chunk_ms=chunk_ms)
    if stand_in_port is not None:
        if scenarios:
            raise click.UsageError(
                "--stand-in plays no scenarios: leave it running and play them from another shell"
            )
        run(_stand_in, script, stand_in_port)
        return

    from rich.console import Console

    from xiaozhi_trio.bench import report
    from xiaozhi_trio.bench.run import Plan
    from xiaozhi_trio.bench.run import run as play
    from xiaozhi_trio.bench.scenarios import SCENARIOS
    from xiaozhi_trio.bench.target import Engines

    plan = Plan(
        scenarios=[SCENARIOS[name] for name in scenarios or _SCENARIOS],
        url=url,
        against=against,
        devices=devices,
        rounds=rounds,
        processes=processes,
        script=script,
        engines=Engines(engines),
    )
    results = run(play, plan, _tell)
    if all(result.failure for result in results):
        raise CommandFailed("no scenario gave any figures; the reasons stand above")
    if json_file is None or str(json_file) != "-":
        Console(width=None if Console().is_terminal else 140).print(report.table(results))
    if json_file is not None:
        _write(json_file, report.as_json(results))


async def _stand_in(script: Script, port: int) -> None:
    import os
    import signal
    from functools import partial

    import trio

    from xiaozhi_trio.bench.stand_in import serve

    shutdown = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            try:
                base_url: str = await nursery.start(
                    partial(serve, script, port=port, shutdown=shutdown)
                )
            except OSError as error:
                raise CommandFailed(
                    f"the stand-in cannot listen on port {port} ({os.strerror(error.errno or 0)}); "
                    "give --stand-in another port, or 0 for a free one"
                ) from error
            click.echo(base_url)
            await anext(aiter(signals))
            shutdown.set()


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
