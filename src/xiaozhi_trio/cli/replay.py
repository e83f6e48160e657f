"""`xiaozhi-trio replay`: the device's side of a recording played again, and what is different."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from xiaozhi_trio.cli.failures import leaves, run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from xiaozhi_trio.cli.recorded_conversation import RecordedConversation
    from xiaozhi_trio.cli.replayed_device import ReplayedDevice


class ReplayImpossible(click.ClickException):
    """The recording cannot be read or the server cannot be reached. Exit code 2."""

    exit_code = 2


@click.command(short_help="Play a recorded session again and compare.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--url", help="WebSocket address of the server [default: this machine's].")
@click.option("--token", default="", help="What to show that server; recordings hold none.")
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 100),
    default=1.0,
    show_default=True,
    help="How many times faster the device acts; other than 1 compares no times.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 600),
    default=20.0,
    show_default=True,
    help="Longest wait for what the server said in the recording, s.",
)
@click.option(
    "--tolerance-ms",
    type=click.FloatRange(0, 60_000),
    default=250.0,
    show_default=True,
    help="By how much speech may begin sooner or later.",
)
@click.option("--ignore-texts", is_flag=True, help="Compare what is said, not in which words.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common_options
@pass_options
def replay(
    options: CommonOptions,
    folder: Path,
    url: str | None,
    token: str,
    speed: float,
    patience: float,
    tolerance_ms: float,
    ignore_texts: bool,
    as_json: bool,
) -> None:
    """Play the device's side of the recording in DIR against a server, and tell the differences.

    DIR is one session's folder, of those that `xiaozhi-trio serve --record` makes.

    The exit status is 0 where the server said the same, 1 where it did not, 2 where
    the recording cannot be read or the server cannot be reached.
    """
    from xiaozhi_trio.cli.recorded_conversation import RecordingUnreadable, read_recording
    from xiaozhi_trio.cli.replay_differences import differences

    settings = options.load(quiet=True)
    server = settings.server
    address = url or f"ws://127.0.0.1:{server.websocket_port}{server.websocket_path}"
    try:
        recorded = read_recording(folder)
    except RecordingUnreadable as error:
        raise ReplayImpossible(str(error)) from error
    device = run(_play, recorded, address, token, speed, patience)
    found = differences(
        recorded.happenings,
        device.happenings,
        texts=not ignore_texts,
        tolerance_ms=tolerance_ms if speed == 1 else None,
    )
    notes = [*recorded.notes, *device.notes]
    if as_json:
        body: dict[str, Any] = {
            "folder": str(folder),
            "url": address,
            "same": not found,
            "differences": [attrs.asdict(difference) for difference in found],
            "notes": notes,
        }
        click.echo(json.dumps(body, ensure_ascii=False))
    else:
        for text in (*(f"note: {note}" for note in notes), *map(str, found)):
            # A server's words must not steer the terminal.
            click.echo(
                "".join(
                    each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text
                )
            )
        click.echo(f"{len(found)} differences" if found else "no differences")
    if found:
        raise click.exceptions.Exit(1)


async def _play(
    recorded: RecordedConversation, url: str, token: str, speed: float, patience: float
) -> ReplayedDevice:
    from trio_websocket import ConnectionRejected, HandshakeError

    from xiaozhi_trio.cli.replayed_device import ReplayedDevice
    from xiaozhi_trio.testing.websocket_link import dial

    heading = recorded.heading
    try:
        async with dial(
            url,
            device_id=heading.device,
            client_id=heading.client,
            token=token,
            binary_version=heading.protocol_version,
        ) as link:
            device = ReplayedDevice(recorded, link, speed=speed, patience=patience)
            await device.play()
            return device
    except OSError as error:
        raise ReplayImpossible(f"{url} cannot be reached: {error}") from error
    except BaseExceptionGroup as group:
        reasons = list(leaves(group))
        if all(isinstance(each, ConnectionRejected | HandshakeError) for each in reasons):
            told = ", ".join(map(str, reasons))
            raise ReplayImpossible(f"{url} does not let the device in: {told}") from group
        raise
