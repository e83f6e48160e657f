"""`xiaozhi-trio trace`: where the time of the last turns went."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

import click

from xiaozhi_trio.cli.failures import CommandFailed, run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    import httpx

    from xiaozhi_trio.telemetry.trace_record import TracePage, TurnRecord

    Show = Callable[[TurnRecord], None]

_SECONDS: Final = 10.0
"""Longest wait for an answer."""
_PAUSE_SECONDS: Final = 1.0
"""Between two looks at a server that is followed."""
_MOST_BYTES: Final = 32 * 1024 * 1024
_LONGEST_REASON: Final = 500
_MOST_TURNS: Final = 200


@click.command(short_help="Show where the time of the last turns went.")
@click.option("--device", metavar="ID", help="Turns of this device only.")
@click.option(
    "--url", metavar="URL", help="The server's HTTP port [default: http://127.0.0.1 and http_port]."
)
@click.option(
    "--last", type=click.IntRange(1, _MOST_TURNS), default=10, show_default=True, help="How many."
)
@click.option("--follow", is_flag=True, help="Go on with every further turn, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each turn.")
@common_options
@pass_options
def trace(
    options: CommonOptions,
    device: str | None,
    url: str | None,
    last: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the last turns of a running server as waterfalls, the newest at the end.

    Times are milliseconds from the end of the speech. The server lets its own machine
    read them, or whoever has the read_token of [telemetry], which is taken from the
    configuration.
    """
    import httpx

    settings = options.load(quiet=True)
    token = settings.telemetry.read_token
    try:
        client = httpx.AsyncClient(
            base_url=url or f"http://127.0.0.1:{settings.server.http_port}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_SECONDS,
            # A server on this machine or in this house is not behind a proxy.
            trust_env=False,
        )
    except httpx.InvalidURL as error:
        raise CommandFailed(f"{url} is no address: {error}") from error
    query = {"last": str(last)} | ({} if device is None else {"device": device})
    run(_show_turns, client, query, follow, _print_json if as_json else _printer())


async def _show_turns(
    client: httpx.AsyncClient, query: dict[str, str], follow: bool, show: Show
) -> None:
    import trio

    async with client:
        page = await _read(client, query)
        if not page.turns and not follow:
            click.echo("No turns yet.", err=True)
        while True:
            for turn in page.turns:
                show(turn)
            if not follow:
                return
            await trio.sleep(_PAUSE_SECONDS)
            seen = page.serial
            page = await _read(client, query | {"after": str(seen), "last": str(_MOST_TURNS)})
            if page.serial < seen:
                # The server was started anew, and counts from the beginning.
                page = await _read(client, query)


async def _read(client: httpx.AsyncClient, query: dict[str, str]) -> TracePage:
    import httpx

    from xiaozhi_trio.telemetry.trace_record import PageMalformed, from_json

    body = bytearray()
    try:
        async with (
            client.stream("GET", "/xiaozhi/traces", params=query) as answer,
            aclosing(cast("AsyncGenerator[bytes, None]", answer.aiter_bytes())) as parts,
        ):
            async for data in parts:
                body += data
                if len(body) > _MOST_BYTES:
                    raise CommandFailed(f"{client.base_url} sends more than a server would")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandFailed(
            f"No answer from {client.base_url}: {str(error) or type(error).__name__}. "
            "Is the server running there? Another address is given with --url."
        ) from error
    if not answer.is_success:
        raise CommandFailed(f"{client.base_url} answers {answer.status_code}: {_reason_in(body)}")
    try:
        return from_json(bytes(body))
    except PageMalformed as error:
        raise CommandFailed(
            f"{client.base_url} is no xiaozhi-trio server of this version: "
            f"{str(error)[:_LONGEST_REASON]}"
        ) from error


def _reason_in(body: bytes | bytearray) -> str:
    """What the server says, which may be any server, in a form for the terminal."""
    import orjson

    from xiaozhi_trio.telemetry.lines import printable

    try:
        message = orjson.loads(body)["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "no reason is given"
    return printable(str(message)[:_LONGEST_REASON])


def _printer() -> Show:
    from rich.console import Console

    from xiaozhi_trio.cli.waterfall import waterfall

    console = Console(highlight=False)

    def show(turn: TurnRecord) -> None:
        console.print(waterfall(turn, width=console.width), soft_wrap=True)
        console.print()

    return show


def _print_json(turn: TurnRecord) -> None:
    from xiaozhi_trio.telemetry.trace_record import turn_to_json

    click.echo(turn_to_json(turn))
