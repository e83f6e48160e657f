"""`xiaozhi-trio serve`: run the server until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from xiaozhi_trio.cli.failures import CommandFailed, run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xiaozhi_trio.cli.banner import Addresses
    from xiaozhi_trio.config.settings import Settings

    Serve = Callable[..., Awaitable[None]]
    Announce = Callable[[Settings, Addresses], None]


@click.command(short_help="Run the server.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep every session in this folder, with all that is said, to be replayed.",
)
@common_options
@pass_options
def serve(options: CommonOptions, record: Path | None) -> None:
    """Run the server until Ctrl-C or SIGTERM, upon which it says goodbye to its devices.

    Ends with 0 after that, 1 where it could not start, 2 where the configuration is wrong.
    """
    from xiaozhi_trio import server

    settings = options.load()
    if record is not None:
        recording = attrs.evolve(settings.recording, directory=str(record))
        settings = attrs.evolve(settings, recording=recording)
    as_json = settings.logging.json if options.json_logs is None else options.json_logs
    run(_serve, settings, server.serve, _log_addresses if as_json else _print_addresses)


async def _serve(settings: Settings, serve: Serve, announce: Announce) -> None:
    import trio

    from xiaozhi_trio.server import StartError

    async with trio.open_nursery() as nursery:
        try:
            addresses: Addresses = await nursery.start(serve, settings)
        except StartError as error:
            raise CommandFailed(f"The server cannot start: {error}") from error
        announce(settings, addresses)


def _print_addresses(settings: Settings, addresses: Addresses) -> None:
    from xiaozhi_trio.cli.banner import show_banner

    show_banner(settings, addresses)


def _log_addresses(settings: Settings, addresses: Addresses) -> None:
    from loguru import logger

    from xiaozhi_trio.cli.banner import engine_names

    logger.bind(
        ota=" ".join(addresses.ota_urls),
        websocket=" ".join(addresses.websocket_urls),
        engines=engine_names(settings),
    ).info("serving")
