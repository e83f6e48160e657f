"""The whole server: built from its settings, run in one nursery, drained on a signal."""

from __future__ import annotations

import secrets
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from loguru import logger

from xiaozhi_trio import __version__
from xiaozhi_trio.audio import libopus
from xiaozhi_trio.collector import calm_collector
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.slots import EngineSet, SlotState, SlotStatus
from xiaozhi_trio.gateway.authentication import Authenticator
from xiaozhi_trio.gateway.gateway import Gateway
from xiaozhi_trio.gateway.tls import load_tls
from xiaozhi_trio.http.advertise import Approach, http_url, lan_addresses, websocket_url
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import serve_http
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.http.tokens import SteadyTokens
from xiaozhi_trio.listener import CannotListen
from xiaozhi_trio.session.agents import Agents
from xiaozhi_trio.session.encoding import encoding_threads
from xiaozhi_trio.session.end_of_turn.registry import StrategyUnavailable
from xiaozhi_trio.session.recording import Recorder
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.session.session import Session, SessionServices
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.store.paths import state_directory
from xiaozhi_trio.store.recordings import RecordingUnusable
from xiaozhi_trio.store.secret import SecretUnavailable, load_or_create_secret
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.logging import hide_secret
from xiaozhi_trio.telemetry.telemetry import Telemetry
from xiaozhi_trio.wire.token import TokenSigner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xiaozhi_trio.wire.handshake import Handshake

_SECONDS_PER_DAY: Final = 86_400
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ENGINE_CLOSE_SECONDS: Final = 5.0
_EVERY_INTERFACE: Final = ("", "0.0.0.0", "::")


class StartError(Exception):
    """The server cannot start; the text says why and what to do."""


@attrs.frozen(kw_only=True)
class ServingAddresses:
    """Where the server can be reached, once it listens."""

    websocket_urls: tuple[str, ...]
    """One for every LAN address, to be given to devices."""
    ota_urls: tuple[str, ...]
    """One for every LAN address, to be given to devices and to the browser page."""
    websocket_port: int
    http_port: int


@attrs.define(kw_only=True)
class Server:
    """Everything that lives as long as the process."""

    settings: Settings
    engines: EngineSet
    signer: TokenSigner
    agents: Agents
    counters: Counters = attrs.field(factory=Counters)
    telemetry: Telemetry = attrs.field(init=False)
    roster: Roster = attrs.field(factory=Roster)
    stock: StockSpeech = attrs.field(
        default=attrs.Factory(
            lambda self: StockSpeech(self.engines.tts, encoding_threads(), self.settings),
            takes_self=True,
        )
    )
    recorder: Recorder | None = None
    shutdown: trio.Event = attrs.field(factory=trio.Event)
    _began: float = attrs.field(factory=time.monotonic)
    _websocket_port: int = 0
    _http_port: int = 0

    @telemetry.default
    def _make_telemetry(self) -> Telemetry:
        return Telemetry.of(self.settings.telemetry, self.counters, self.health)

    @classmethod
    async def build(cls, settings: Settings, engines: EngineSet | None = None) -> Server:
        """Put the parts together; nothing listens or loads yet. Raises `StartError`.

        `engines` are used in place of those that the settings choose.
        """
        counters = Counters()
        try:
            libopus.bindings()
            return cls(
                settings=settings,
                engines=engines
                or EngineSet.of(settings, _model_store(settings), count=counters.count),
                counters=counters,
                signer=await trio.to_thread.run_sync(_signer, settings),
                agents=Agents.of(settings),
                recorder=await _recorder(settings, counters),
            )
        except (
            libopus.OpusMissingError,
            EngineError,
            SecretUnavailable,
            StrategyUnavailable,
            RecordingUnusable,
        ) as error:
            raise StartError(str(error)) from error

    async def run(
        self, *, task_status: trio.TaskStatus[ServingAddresses] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `shutdown` is set, then drain. Raises `StartError`."""
        failure: Exception | None = None
        try:
            async with self.telemetry.exporting(), trio.open_nursery() as nursery:
                try:
                    gateway, services = await self._gateway(), self._http_services()
                    self._http_port = await nursery.start(
                        partial(
                            serve_http,
                            build_app(services),
                            services,
                            shutdown=self.shutdown,
                        )
                    )
                    bound = await nursery.start(gateway.serve)
                except CannotListen as error:
                    failure = error
                    nursery.cancel_scope.cancel()
                else:
                    self._websocket_port = bound[0][1]
                    task_status.started(self._addresses())
                    nursery.start_soon(self._load_engines)
                    nursery.start_soon(self._prepare_stock)
                    if self.recorder is not None:
                        nursery.start_soon(self._keep_recordings_tidy, self.recorder)
                    await self.shutdown.wait()
                    gateway.stop()
        finally:
            with trio.move_on_after(_ENGINE_CLOSE_SECONDS, shield=True):
                await self.engines.aclose()
        if failure is not None:
            raise StartError(str(failure)) from failure

    async def _gateway(self) -> Gateway:
        settings = self.settings
        return Gateway(
            server=settings.server,
            limits=settings.limits,
            authenticator=Authenticator(
                self.signer if settings.authentication.enabled else None,
                settings.authentication.allowed_devices,
            ),
            sessions=self._sessions(),
            roster=self.roster,
            counters=self.counters,
            health=self.health,
            tls=await trio.to_thread.run_sync(load_tls, settings.server),
            recorder=self.recorder,
        )

    def _sessions(self) -> Callable[[Handshake, str], Session]:
        services = SessionServices(
            settings=self.settings,
            engines=self.engines,
            run_encoding=self.stock.run_encoding,
            stock=self.stock,
            vision=self._vision,
            agents=self.agents,
            traces=self.telemetry.traces,
        )
        return lambda handshake, session_id: Session(handshake, session_id, services)

    def _vision(self, handshake: Handshake) -> tuple[str, str]:
        approach = Approach(host_header=handshake.host, local_port=self._http_port)
        return (
            f"{http_url(self.settings.server, approach=approach)}/mcp/vision/explain",
            SteadyTokens(self.signer).issue(handshake.client_id, handshake.device_id),
        )

    def _http_services(self) -> HttpServices:
        return HttpServices(
            settings=self.settings,
            tokens=SteadyTokens(self.signer),
            websocket_port=lambda: self._websocket_port,
            health=self.health,
            counters=self.counters,
            telemetry=self.telemetry,
        )

    async def _prepare_stock(self) -> None:
        """Make the server's own phrases ready while nothing more urgent is to be spoken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_shutdown, nursery.cancel_scope)
            await self.stock.prepare(self.agents.phrases())
            nursery.cancel_scope.cancel()

    async def _keep_recordings_tidy(self, recorder: Recorder) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_shutdown, nursery.cancel_scope)
            await recorder.keep_tidy()

    async def _load_engines(self) -> None:
        """Load the engines while devices are already greeted, until all are or the server stops."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_shutdown, nursery.cancel_scope)
            await self.engines.load()
            nursery.cancel_scope.cancel()
            states = self.engines.states()
            failed = [name for name, state in states.items() if state.status is SlotStatus.FAILED]
            log = logger.bind(seconds=round(trio.current_time() - began, 1))
            if failed:
                log.bind(failed=failed).error("some engines are not ready")
            else:
                log.info("all engines are ready")

    async def _cancel_at_shutdown(self, scope: trio.CancelScope) -> None:
        await self.shutdown.wait()
        scope.cancel()

    def _addresses(self) -> ServingAddresses:
        server = self.settings.server
        hosts = [server.host]
        if server.host in _EVERY_INTERFACE:
            hosts = lan_addresses() or ["127.0.0.1"]
        approaches = [Approach(host_header=host, local_port=self._http_port) for host in hosts]
        return ServingAddresses(
            websocket_urls=_distinct(
                websocket_url(server, port=self._websocket_port, approach=approach)
                for approach in approaches
            ),
            ota_urls=_distinct(
                f"{http_url(server, approach=approach)}/xiaozhi/ota/" for approach in approaches
            ),
            websocket_port=self._websocket_port,
            http_port=self._http_port,
        )

    def health(self) -> Mapping[str, Any]:
        """What `/health` tells."""
        states = self.engines.states()
        status = "ok"
        if any(state.is_impaired for state in states.values()):
            status = "degraded"
        elif any(state.status is SlotStatus.LOADING for state in states.values()):
            status = "loading"
        return {
            "status": status,
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "sessions": len(self.roster),
            "engines": {name: _engine_health(state) for name, state in states.items()},
        }


async def serve(
    settings: Settings,
    *,
    task_status: trio.TaskStatus[ServingAddresses] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a server until SIGINT or SIGTERM: the first drains, the second ends at once.

    Raises `StartError`.
    """
    server = await Server.build(settings)
    calm_collector()
    failure: StartError | None = None
    with trio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, server.shutdown, nursery.cancel_scope)
            try:
                await server.run(task_status=task_status)
            except StartError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _stop_on_signal(signals: Any, shutdown: trio.Event, everything: trio.CancelScope) -> None:
    async for number in signals:
        logger.bind(signal=signal.Signals(number).name).info("stopping")
        if shutdown.is_set():
            everything.cancel()
        shutdown.set()


def _engine_health(state: SlotState) -> dict[str, Any]:
    return {
        "engine": state.engine,
        "state": state.status.value,
        "seconds": round(state.seconds, 1),
        **({"reason": state.reason} if state.reason else {}),
        **({"circuit": state.circuit.value} if state.circuit else {}),
        **({"chain": [_engine_health(each) for each in state.chain]} if state.chain else {}),
    }


async def _recorder(settings: Settings, counters: Counters) -> Recorder | None:
    """What records the sessions, if anything does. Raises `RecordingUnusable`."""
    if not settings.recording.directory:
        return None
    recorder = Recorder(settings, counters)
    await recorder.prepare()
    return recorder


def _model_store(settings: Settings) -> ModelStore:
    configured = settings.models.directory
    directory = Path(configured).expanduser() if configured else default_model_directory()
    return ModelStore(directory, sources=settings.models.sources)


def _signer(settings: Settings) -> TokenSigner:
    """The signer of the configured, kept or newly made secret. Raises `SecretUnavailable`."""
    authentication = settings.authentication
    secret = authentication.secret
    if not secret:
        try:
            secret = load_or_create_secret(state_directory(settings))
        except SecretUnavailable as error:
            if authentication.enabled:
                raise
            logger.bind(reason=str(error)).warning("tokens are good until the next start only")
            secret = secrets.token_urlsafe(32)
    hide_secret(secret)
    return TokenSigner(
        secret=secret,
        lifetime_seconds=authentication.token_days * _SECONDS_PER_DAY,
        clock_skew_seconds=authentication.clock_skew_seconds,
    )


def _distinct(texts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
