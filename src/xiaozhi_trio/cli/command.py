"""The commands together. Each imports what it runs only when it is run, so that help is quick."""

from __future__ import annotations

import click

from xiaozhi_trio.cli.bench import bench
from xiaozhi_trio.cli.check import check
from xiaozhi_trio.cli.models import models
from xiaozhi_trio.cli.options import common_options
from xiaozhi_trio.cli.probe import probe
from xiaozhi_trio.cli.replay import replay
from xiaozhi_trio.cli.scenario import scenario
from xiaozhi_trio.cli.serve import serve
from xiaozhi_trio.cli.token import token
from xiaozhi_trio.cli.trace import trace


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common_options
def program() -> None:
    """The voice server behind xiaozhi devices. `xiaozhi-trio serve` starts it as it is."""


for command in (serve, check, token, models, probe, bench, trace, scenario, replay):
    program.add_command(command)
