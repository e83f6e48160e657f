"""`xiaozhi-trio check`: would the server start with this configuration?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from xiaozhi_trio.cli.failures import ConfigurationWrong, run
from xiaozhi_trio.cli.options import CommonOptions, common_options, pass_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from xiaozhi_trio.config.errors import Problem
    from xiaozhi_trio.config.settings import AgentSettings, Settings

_DEVICES_SHOWN = 3


@click.command(short_help="Check the configuration and what it refers to.")
@common_options
@pass_options
def check(options: CommonOptions) -> None:
    """Check the configuration, its engines, certificate and folders. Starts and fetches nothing.

    Ends with 0 and a summary, or with 2 and every problem found.
    """
    from xiaozhi_trio.config.loader import find_config

    settings = options.load(quiet=True)
    file = find_config(options.config)
    called = "the defaults" if file is None else str(file)
    problems = [
        *_certificate_problems(settings, called),
        *_folder_problems(settings, called),
        *run(_engine_problems, settings, called),
        *_end_of_turn_problems(settings, called),
    ]
    if problems:
        raise ConfigurationWrong(problems)
    for table in _unclaimed_tables(settings):
        click.echo(f"Note: {table} is for an engine that is not installed.", err=True)
    click.echo(f"{called}: OK")
    for name, value in _summary(settings):
        click.echo(f"  {name:<15} {value}")


def _certificate_problems(settings: Settings, file: str) -> Iterator[Problem]:
    from xiaozhi_trio.config.errors import Problem
    from xiaozhi_trio.gateway.tls import load_tls
    from xiaozhi_trio.listener import CannotListen

    try:
        load_tls(settings.server)
    except CannotListen as error:
        yield Problem(
            file=file,
            key="[server] tls_certificate",
            message=str(error),
            fix="give the files of a certificate chain and of its private key",
        )


def _folder_problems(settings: Settings, file: str) -> Iterator[Problem]:
    from xiaozhi_trio.cli.folders import model_directory, obstacle_to_writing
    from xiaozhi_trio.config.errors import Problem
    from xiaozhi_trio.store.paths import state_directory

    folders: list[tuple[str, Path]] = []
    if missing_models(settings):
        folders.append(("[models] directory", model_directory(settings)))
    if settings.authentication.enabled and not settings.authentication.secret:
        folders.append(("[state] directory", state_directory(settings)))
    for key, folder in folders:
        obstacle = obstacle_to_writing(folder)
        if obstacle is not None:
            yield Problem(
                file=file,
                key=key,
                message=f"{folder} cannot be used: {obstacle}",
                fix="let the server's user write there, or name another folder",
            )


async def _engine_problems(settings: Settings, file: str) -> list[Problem]:
    from xiaozhi_trio.cli.folders import model_directory
    from xiaozhi_trio.config.errors import Problem
    from xiaozhi_trio.engines.errors import EngineError
    from xiaozhi_trio.engines.model_store import ModelStore
    from xiaozhi_trio.engines.registry import EngineKind, FallbackUnavailable, build_chain

    models = ModelStore(model_directory(settings), sources=settings.models.sources)
    problems = []
    for kind in (EngineKind.VAD, EngineKind.ASR, EngineKind.LLM, EngineKind.TTS):
        try:
            engines = build_chain(kind, settings, models)
        except EngineError as error:
            named_by = "fallback" if isinstance(error, FallbackUnavailable) else "engine"
            problems.append(
                Problem(
                    file=file,
                    key=f"[{kind.value}] {named_by}",
                    message=str(error),
                    fix="choose another engine, or make this one available",
                )
            )
        else:
            for engine in engines:
                await engine.aclose()
    return problems


def _end_of_turn_problems(settings: Settings, file: str) -> Iterator[Problem]:
    from xiaozhi_trio.config.errors import Problem
    from xiaozhi_trio.config.values import toml_of
    from xiaozhi_trio.session.end_of_turn.registry import StrategyUnavailable, build_end_of_turn

    told: set[str] = set()
    for agent in (None, *settings.agents):
        chosen = settings if agent is None else settings.led_by(agent)
        try:
            build_end_of_turn(chosen.listening)
        except StrategyUnavailable as error:
            # What is wrong for all devices is so for each agent that leaves it as it is.
            if str(error) in told:
                continue
            told.add(str(error))
            yield Problem(
                file=file,
                key="[listening] end_of_turn"
                if agent is None
                else f"[agents.listening] end_of_turn of {toml_of(agent.name)}",
                message=str(error),
                fix="choose another, or install the package that has it",
            )


def _unclaimed_tables(settings: Settings) -> Iterator[str]:
    from xiaozhi_trio.engines.registry import EngineKind, engine_names

    tables: dict[EngineKind, Mapping[str, Any]] = {
        EngineKind.VAD: settings.vad.others,
        EngineKind.ASR: settings.asr.others,
        EngineKind.LLM: settings.llm.others,
        EngineKind.TTS: settings.tts.others,
    }
    for kind, others in tables.items():
        for name in others.keys() - set(engine_names(kind)):
            yield f"[{kind.value}.{name}]"


def missing_models(settings: Settings) -> list[str]:
    """The models that the engines need and that are not here yet, or not whole."""
    from xiaozhi_trio.cli.folders import model_directory
    from xiaozhi_trio.cli.needed_models import needed_models
    from xiaozhi_trio.engines.catalogue import Catalogue
    from xiaozhi_trio.engines.model_store import ModelStore, Presence

    catalogue = Catalogue.load()
    directory = model_directory(settings)
    needed = [name for name in needed_models(settings, catalogue) if name in catalogue.models]
    if not directory.is_dir():
        return needed
    store = ModelStore(directory, sources=settings.models.sources, catalogue=catalogue)
    return [name for name in needed if store.state(name).presence is not Presence.PRESENT]


def _summary(settings: Settings) -> Iterator[tuple[str, str]]:
    from xiaozhi_trio.cli.banner import engine_names
    from xiaozhi_trio.cli.folders import model_directory
    from xiaozhi_trio.store.paths import state_directory

    server = settings.server
    scheme = "wss" if server.tls_certificate else "ws"
    yield "WebSocket", f"{scheme}://{server.host}:{server.websocket_port}{server.websocket_path}"
    yield "OTA", f"http://{server.host}:{server.http_port}/xiaozhi/ota/"
    yield "engines", engine_names(settings)
    missing = missing_models(settings)
    fetched = f" (to be fetched: {', '.join(missing)})" if missing else ""
    yield "models", f"{model_directory(settings)}{fetched}"
    yield "state", str(state_directory(settings))
    yield (
        "authentication",
        "on" if settings.authentication.enabled else "off, any device may connect",
    )
    for agent in settings.agents:
        yield "agent", _agent_summary(settings, agent)


def _agent_summary(settings: Settings, agent: AgentSettings) -> str:
    """`grandma: aa:bb:cc:*, kitchen; own listening, conversation`."""
    from xiaozhi_trio.config.agents import agent_sections

    own = [
        name
        for name in agent_sections(type(agent))
        if getattr(agent, name) != getattr(settings, name)
    ]
    shown = ", ".join(agent.devices[:_DEVICES_SHOWN])
    more = len(agent.devices) - _DEVICES_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"{agent.name}: {shown}{rest}; own {', '.join(own) or 'nothing'}"
