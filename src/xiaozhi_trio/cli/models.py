"""`xiaozhi-trio models`: see, fetch and check the files of the embedded models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xiaozhi_trio.cli.failures import CommandFailed, run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.catalogue import Catalogue
    from xiaozhi_trio.engines.model_store import ModelStore


@click.group(short_help="List, fetch and verify model files.")
@common_options
def models() -> None:
    """The files of the embedded models. The server fetches what it lacks by itself at its start."""


@models.command("list", short_help="Show every model and whether it is here.")
@common_options
@pass_options
def list_models(options: CommonOptions) -> None:
    """Show every model of the catalogue, whether it is on this machine, and which are needed."""
    from xiaozhi_trio.engines.catalogue import Catalogue
    from xiaozhi_trio.engines.model_store import Presence

    settings = options.load(quiet=True)
    catalogue = Catalogue.load()
    store = _store(settings, catalogue)
    needed = _needed(settings, catalogue)
    click.echo(f"{store.directory}")
    for name, model in catalogue.models.items():
        state = store.state(name)
        here = state.presence.value
        if state.presence is Presence.PARTIAL:
            here = f"{100 * state.present_bytes // state.total_bytes} % here"
        mark = "needed" if name in needed else ""
        size = _megabytes(model.total_bytes)
        click.echo(f"  {name:<20} {size:>9}  {here:<9} {mark:<7} {model.description}")


@models.command(short_help="Fetch models: the named ones, or all that are needed.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
@pass_options
def pull(options: CommonOptions, names: tuple[str, ...]) -> None:
    """Fetch the named models, or those that the configuration needs.

    A download that was broken off goes on where it was.
    """
    from xiaozhi_trio.engines.catalogue import Catalogue

    settings = options.load(quiet=True)
    catalogue = Catalogue.load()
    chosen = _chosen(names, catalogue) or _needed(settings, catalogue)
    if not chosen:
        click.echo("The configuration needs no models: none of its engines is embedded.")
        return
    run(_pull, _store(settings, catalogue), chosen)


@models.command(short_help="Hash the files of models again.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@common_options
@pass_options
def verify(options: CommonOptions, names: tuple[str, ...]) -> None:
    """Hash the files of the named models, or of all that are here.

    Ends with 1 where one is not sound.
    """
    from xiaozhi_trio.engines.catalogue import Catalogue
    from xiaozhi_trio.engines.model_store import Presence

    settings = options.load(quiet=True)
    catalogue = Catalogue.load()
    store = _store(settings, catalogue)
    chosen = _chosen(names, catalogue) or [
        name for name in catalogue.models if store.state(name).presence is not Presence.MISSING
    ]
    if not chosen:
        click.echo(f"There are no models in {store.directory}.")
        return
    unsound = run(_verify, store, chosen)
    if unsound:
        raise CommandFailed(
            f"not sound: {', '.join(unsound)}; run: xiaozhi-trio models pull {' '.join(unsound)}"
        )


async def _pull(store: ModelStore, names: Sequence[str]) -> None:
    from xiaozhi_trio.cli.download_bars import DownloadBars

    with DownloadBars() as bars:
        for name in names:
            folder = await store.ensure(name, bars.advance)
            bars.say(f"{name}: {folder}")


async def _verify(store: ModelStore, names: Sequence[str]) -> list[str]:
    """The models that have a file that is missing or damaged."""
    unsound = []
    for name in names:
        verdicts = await store.verify(name)
        for verdict in verdicts:
            reason = f": {verdict.reason}" if verdict.reason else ""
            click.echo(f"{name}/{verdict.file}: {verdict.verdict.value}{reason}")
        if not all(verdict.sound for verdict in verdicts):
            unsound.append(name)
    return unsound


def _store(settings: Settings, catalogue: Catalogue) -> ModelStore:
    from xiaozhi_trio.cli.folders import model_directory
    from xiaozhi_trio.engines.model_store import ModelStore

    return ModelStore(
        model_directory(settings), sources=settings.models.sources, catalogue=catalogue
    )


def _needed(settings: Settings, catalogue: Catalogue) -> list[str]:
    from xiaozhi_trio.cli.needed_models import needed_models

    return needed_models(settings, catalogue)


def _chosen(names: Sequence[str], catalogue: Catalogue) -> list[str]:
    from xiaozhi_trio.engines.catalogue import UnknownModelError

    try:
        return [catalogue.model(name).name for name in dict.fromkeys(names)]
    except UnknownModelError as error:
        raise CommandFailed(str(error)) from error


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"
