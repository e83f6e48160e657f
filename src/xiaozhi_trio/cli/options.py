"""The options that every command has, before or after its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

import xiaozhi_trio
from xiaozhi_trio.cli.failures import ConfigurationWrong

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.config.settings import Settings

_LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR")

F = TypeVar("F", bound="Callable[..., Any]")


@attrs.define
class CommonOptions:
    """What the command line said of every command's options; the last mention counts."""

    config: Path | None = None
    log_level: str | None = None
    json_logs: bool | None = None

    def load(self, *, quiet: bool = False) -> Settings:
        """Read the configuration and set the log up by it.

        A `quiet` command logs warnings only, unless the command line asks for more.
        Raises `ConfigurationWrong`.
        """
        from xiaozhi_trio.config.errors import ConfigError
        from xiaozhi_trio.config.loader import load_settings
        from xiaozhi_trio.config.secrets import secret_values
        from xiaozhi_trio.telemetry.logging import configure_logging, hide_secret

        try:
            settings = load_settings(self.config)
        except ConfigError as error:
            raise ConfigurationWrong(error.problems) from error
        for secret in secret_values(settings):
            hide_secret(secret)
        level = self.log_level or ("WARNING" if quiet else None)
        configure_logging(settings.logging, json=self.json_logs, level=level)
        return settings


def common_options(command: F) -> F:
    """Give a command `--config`, `--log-level`, `--json-logs` and `--version`."""
    options = (
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Configuration file [default: $XIAOZHI_TRIO_CONFIG, else config.toml if there].",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "--log-level",
            type=click.Choice(_LEVELS, case_sensitive=False),
            help="Least important line shown, above the configuration.",
            expose_value=False,
            callback=_remember,
        ),
        click.option(
            "--json-logs/--text-logs",
            default=None,
            help="Log JSON objects or text, above the configuration.",
            expose_value=False,
            callback=_remember,
        ),
        click.version_option(xiaozhi_trio.__version__, prog_name="xiaozhi-trio"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(CommonOptions), parameter.name, value)


pass_options = click.make_pass_decorator(CommonOptions, ensure=True)
"""Gives a command the `CommonOptions` as its first argument."""
