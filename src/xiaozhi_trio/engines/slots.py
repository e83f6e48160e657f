"""Engines in the state they are in: loading behind the server's back, ready, or failed."""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceActivityDetector,
)
from xiaozhi_trio.engines.registry import EngineKind, build_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.model_folder import ModelFolder

EngineT = TypeVar("EngineT", bound=Engine)

FIRST_RETRY_SECONDS = 2.0
"""Pause after the first failed load; every further one is twice as long."""

LONGEST_RETRY_SECONDS = 60.0


class SlotStatus(enum.Enum):
    """What can be expected of a slot."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@attrs.frozen
class SlotState:
    """A slot at one moment, as /health shows it."""

    engine: str
    """The engine's name in the configuration."""
    status: SlotStatus
    seconds: float
    """How long it has been loading; once settled, how long the load took."""
    reason: str | None = None
    """Why the last load failed."""


class EngineSlot(Generic[EngineT]):
    """One engine, used by many, loaded by one task in the background."""

    def __init__(self, engine: EngineT, *, kind: EngineKind | None = None) -> None:
        self._engine = engine
        self._kind = kind
        self._status = SlotStatus.LOADING
        self._settled = trio.Event()
        self._error: EngineError | None = None
        self._began: float | None = None
        self._seconds = 0.0

    @classmethod
    def of_ready(cls, engine: EngineT, *, kind: EngineKind | None = None) -> EngineSlot[EngineT]:
        """A slot whose engine needs no loading."""
        slot = cls(engine, kind=kind)
        slot._settle(SlotStatus.READY)
        return slot

    @property
    def state(self) -> SlotState:
        """What the slot is doing now; to be asked inside the event loop."""
        seconds = self._seconds
        if self._status is SlotStatus.LOADING and self._began is not None:
            seconds = trio.current_time() - self._began
        reason = None if self._error is None else str(self._error)
        return SlotState(self._engine.name, self._status, seconds, reason)

    async def ready(self) -> EngineT:
        """The engine, as soon as it is loaded.

        Raises the `EngineError` of the last load while the slot is failed, at once and
        also while a further try is due: a speaker is told rather than kept waiting.
        """
        await self._settled.wait()
        if self._error is not None:
            # Each caller gets its own, for a raised exception collects tracebacks.
            raise EngineError(
                self._error.args[0],
                engine=self._error.engine,
                category=self._error.category,
                retryable=self._error.retryable,
            ) from self._error
        return self._engine

    def ready_nowait(self) -> EngineT | None:
        """The engine if it is loaded, else None."""
        return self._engine if self._status is SlotStatus.READY else None

    async def load(self) -> None:
        """Load the engine; returns when it is ready or has failed for good.

        A load that fails with a retryable error is tried again, with growing pauses,
        until it succeeds. Anything but an `EngineError` is a bug of the engine and
        propagates.
        """
        pause = FIRST_RETRY_SECONDS
        while not await self._load_once(pause):
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)

    async def aclose(self) -> None:
        """Let go of the engine; `load` must have ended or been cancelled before."""
        await self._engine.aclose()

    async def _load_once(self, pause: float) -> bool:
        """Try once; True where no further try makes sense."""
        self._status = SlotStatus.LOADING
        self._error = None
        if self._settled.is_set():
            self._settled = trio.Event()
        self._began = trio.current_time()
        log = logger.bind(
            kind=None if self._kind is None else self._kind.value, engine=self._engine.name
        )
        try:
            await self._engine.load()
        except EngineError as error:
            self._seconds = trio.current_time() - self._began
            self._error = error
            self._settle(SlotStatus.FAILED)
            log.bind(
                reason=str(error),
                seconds=round(self._seconds, 3),
                retry_seconds=pause if error.retryable else None,
            ).error("engine failed to load")
            return not error.retryable
        self._seconds = trio.current_time() - self._began
        self._settle(SlotStatus.READY)
        log.bind(seconds=round(self._seconds, 3)).info("engine ready")
        return True

    def _settle(self, status: SlotStatus) -> None:
        self._status = status
        self._settled.set()


@attrs.frozen
class EngineSet:
    """The four engines of a conversation."""

    vad: EngineSlot[VoiceActivityDetector]
    asr: EngineSlot[SpeechRecognizer]
    llm: EngineSlot[LanguageModel]
    tts: EngineSlot[SpeechSynthesizer]

    @classmethod
    def of(cls, settings: Settings, models: ModelFolder) -> EngineSet:
        """The engines the settings choose, to be loaded by `load`.

        Raises `EngineError` as `build_engine` does.
        """
        return cls(
            vad=EngineSlot(build_engine(EngineKind.VAD, settings, models), kind=EngineKind.VAD),
            asr=EngineSlot(build_engine(EngineKind.ASR, settings, models), kind=EngineKind.ASR),
            llm=EngineSlot(build_engine(EngineKind.LLM, settings, models), kind=EngineKind.LLM),
            tts=EngineSlot(build_engine(EngineKind.TTS, settings, models), kind=EngineKind.TTS),
        )

    def slots(self) -> Mapping[str, EngineSlot[Engine]]:
        """The slots by the name of their kind."""
        return attrs.asdict(self, recurse=False)

    def states(self) -> Mapping[str, SlotState]:
        """The states by the name of the kind, for /health."""
        return {name: slot.state for name, slot in self.slots().items()}

    async def load(self) -> None:
        """Load all four at once; returns when each is ready or has failed for good."""
        async with trio.open_nursery() as nursery:
            for slot in self.slots().values():
                nursery.start_soon(slot.load)

    async def aclose(self) -> None:
        """Close all four, also where closing one of them raises."""
        async with contextlib.AsyncExitStack() as stack:
            for slot in self.slots().values():
                stack.push_async_callback(slot.aclose)
