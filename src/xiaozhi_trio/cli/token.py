"""`xiaozhi-trio token`: a token for one device, as OTA would hand it out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from xiaozhi_trio.cli.failures import CommandFailed
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import Settings

_SECONDS_PER_DAY = 86_400


@click.command(short_help="Print a token for a device.")
@click.argument("device")
@click.argument("client")
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    help="Days until it expires, token_days of the configuration at most and by default.",
)
@common_options
@pass_options
def token(options: CommonOptions, device: str, client: str, days: float | None) -> None:
    """Print a token for the device id DEVICE (its MAC address) and the client id CLIENT.

    Devices get theirs from OTA; this one is for clients that are configured by hand.
    """
    from xiaozhi_trio.wire.device_id import normalise_device_id
    from xiaozhi_trio.wire.token import TokenSigner

    settings = options.load(quiet=True)
    authentication = settings.authentication
    if days is not None and days > authentication.token_days:
        raise CommandFailed(
            f"tokens are valid for {authentication.token_days:g} days, {days:g} were asked for; "
            "raise token_days in [authentication] and restart the server"
        )
    try:
        device_id = normalise_device_id(device)
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    # A token says when it was issued, not when it expires: a shorter life is an earlier birth.
    age = 0.0 if days is None else (authentication.token_days - days) * _SECONDS_PER_DAY
    signer = TokenSigner(
        secret=_secret(settings),
        lifetime_seconds=authentication.token_days * _SECONDS_PER_DAY,
        clock=lambda: time.time() - age,
    )
    click.echo(signer.issue(client, device_id))
    if not authentication.enabled:
        click.echo(
            "Authentication is off: the server takes any device without a token. "
            "To change that, set enabled = true in [authentication].",
            err=True,
        )


def _secret(settings: Settings) -> str:
    from xiaozhi_trio.store.paths import state_directory
    from xiaozhi_trio.store.secret import SecretUnavailable, load_or_create_secret

    if settings.authentication.secret:
        return settings.authentication.secret
    try:
        return load_or_create_secret(state_directory(settings))
    except SecretUnavailable as error:
        raise CommandFailed(str(error)) from error
