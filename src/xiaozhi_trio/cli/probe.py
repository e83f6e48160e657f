"""`xiaozhi-trio probe`: why a client does not get through to a server, this one or any other."""

from __future__ import annotations

import sys

import click


@click.command(
    short_help="Find out why a client does not get through.",
    # The module below has options of its own, since it also runs without this package.
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def probe(arguments: tuple[str, ...]) -> None:
    """Ask a xiaozhi server at URL, a WebSocket or OTA address, as each kind of client does."""
    from xiaozhi_trio.cli import handshake_probe

    sys.exit(handshake_probe.main(arguments, "xiaozhi-trio probe"))
