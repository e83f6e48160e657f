"""Engines in the state they are in: loading behind the server's back, ready, or failed.

What an engine raises while it loads is told and leaves its slot failed, whatever it is:
engines come from anybody, and a process full of sessions does not end over one.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio
from loguru import logger

from xiaozhi_trio.engines.breaker import CircuitStatus
from xiaozhi_trio.engines.edge import EngineBug, engine_edge
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.fallback import (
    FallbackChain,
    FallbackLanguageModel,
    FallbackRecognizer,
    FallbackSynthesizer,
)
from xiaozhi_trio.engines.fallback_link import Count, FallbackPolicy, uncounted
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    Queued,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceActivityDetector,
)
from xiaozhi_trio.engines.registry import EngineKind, build_chain, build_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    circuit: CircuitStatus | None = None
    """Of an engine that has a circuit breaker."""
    chain: tuple[SlotState, ...] = ()
    """Where it stands for several engines: each of them, in the order they are asked."""

    @property
    def is_impaired(self) -> bool:
        """It, or an engine it stands for, has failed or is left alone."""
        return (
            self.status is SlotStatus.FAILED
            or self.circuit not in (None, CircuitStatus.CLOSED)
            or any(state.is_impaired for state in self.chain)
        )


class EngineSlot(Generic[EngineT]):
    """One engine, used by many, loaded by one task in the background."""

    def __init__(
        self,
        engine: EngineT,
        *,
        kind: EngineKind | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """`on_change` is called after every change of `status`."""
        self._engine = engine
        self._kind = kind
        self._on_change = on_change
        self._status = SlotStatus.LOADING
        self._settled = trio.Event()
        self._error: EngineError | None = None
        self._began: float | None = None
        self._seconds = 0.0

    @staticmethod
    def of_ready(engine: EngineT, *, kind: EngineKind | None = None) -> EngineSlot[EngineT]:
        """A slot whose engine needs no loading."""
        slot = EngineSlot(engine, kind=kind)
        slot._settle(SlotStatus.READY)
        return slot

    @property
    def name(self) -> str:
        """The engine's name in the configuration."""
        return self._engine.name

    @property
    def status(self) -> SlotStatus:
        """What can be expected of it now."""
        return self._status

    @property
    def error(self) -> EngineError | None:
        """Why the last load failed."""
        return self._error

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller of the same engine.

        For work that can be left undone, such as the answer to words that may go on.
        """
        engine: object = self._engine
        return isinstance(engine, Queued) and engine.is_busy

    @property
    def state(self) -> SlotState:
        """What the slot is doing now; to be asked inside the event loop."""
        seconds = self._seconds
        if self._status is SlotStatus.LOADING and self._began is not None:
            seconds = trio.current_time() - self._began
        reason = None if self._error is None else str(self._error)
        return SlotState(self.name, self._status, seconds, reason)

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
        until it succeeds. Anything but an `EngineError` is a bug of the engine, logged
        with its traceback and a failure for good.
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
        self._begin()
        log = logger.bind(kind=None if self._kind is None else self._kind.value, engine=self.name)
        try:
            with engine_edge(self.name, "loading"):
                await self._engine.load()
        except EngineError as error:
            self._settle(SlotStatus.FAILED, error)
            log.bind(
                reason=str(error),
                seconds=round(self._seconds, 3),
                retry_seconds=pause if error.retryable else None,
            ).opt(exception=error if isinstance(error, EngineBug) else None).error(
                "engine failed to load"
            )
            return not error.retryable
        self._settle(SlotStatus.READY)
        log.bind(seconds=round(self._seconds, 3)).info("engine ready")
        return True

    def _begin(self) -> None:
        """A load begins."""
        self._status = SlotStatus.LOADING
        self._error = None
        if self._settled.is_set():
            self._settled = trio.Event()
        self._began = trio.current_time()
        self._changed()

    def _settle(self, status: SlotStatus, error: EngineError | None = None) -> None:
        """The load is over."""
        if self._began is not None:
            self._seconds = trio.current_time() - self._began
        self._status = status
        self._error = error
        self._settled.set()
        self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()


class FallbackSlot(EngineSlot[EngineT]):
    """A chain of engines as one: ready as soon as one of them is, failed when all have."""

    def __init__(
        self,
        make: Callable[[FallbackChain[EngineT]], EngineT],
        engines: Sequence[EngineT],
        policy: FallbackPolicy,
        *,
        kind: EngineKind,
        count: Count = uncounted,
    ) -> None:
        """`make` gives the engine that asks those of the chain, such as `FallbackRecognizer`."""
        self._members = [
            EngineSlot(engine, kind=kind, on_change=self._follow) for engine in engines
        ]
        self._chain = FallbackChain(self._members, policy, kind=kind.value, count=count)
        super().__init__(make(self._chain), kind=kind)

    @property
    def state(self) -> SlotState:
        """Of the chain and, where it is of several engines, of each."""
        members = tuple(
            attrs.evolve(member.state, circuit=circuit)
            for member, circuit in zip(self._members, self._chain.circuits, strict=True)
        )
        return members[0] if len(members) == 1 else attrs.evolve(super().state, chain=members)

    async def load(self) -> None:
        """Load all at once; returns when each is ready or has failed for good."""
        self._begin()
        await self._chain.load()

    def _follow(self) -> None:
        """Take on what the members' states amount to."""
        statuses = {member.status for member in self._members}
        if SlotStatus.READY in statuses:
            if self._status is not SlotStatus.READY:
                self._settle(SlotStatus.READY)
        elif SlotStatus.LOADING not in statuses:
            self._settle(SlotStatus.FAILED, self._members[0].error)
        elif self._settled.is_set():
            self._begin()


@attrs.frozen
class EngineSet:
    """The four engines of a conversation."""

    vad: EngineSlot[VoiceActivityDetector]
    asr: EngineSlot[SpeechRecognizer]
    llm: EngineSlot[LanguageModel]
    tts: EngineSlot[SpeechSynthesizer]

    @classmethod
    def of(cls, settings: Settings, models: ModelFolder, *, count: Count = uncounted) -> EngineSet:
        """The engines the settings choose, to be loaded by `load`.

        `count` counts their failures and how often another one stood in. Raises
        `EngineError` as `build_chain` does.
        """
        return cls(
            vad=EngineSlot(build_engine(EngineKind.VAD, settings, models), kind=EngineKind.VAD),
            asr=FallbackSlot(
                FallbackRecognizer,
                build_chain(EngineKind.ASR, settings, models),
                _policy(settings, settings.asr.first_answer_seconds),
                kind=EngineKind.ASR,
                count=count,
            ),
            llm=FallbackSlot(
                FallbackLanguageModel,
                build_chain(EngineKind.LLM, settings, models),
                _policy(settings, settings.llm.first_answer_seconds),
                kind=EngineKind.LLM,
                count=count,
            ),
            tts=FallbackSlot(
                FallbackSynthesizer,
                build_chain(EngineKind.TTS, settings, models),
                _policy(settings, settings.tts.first_answer_seconds),
                kind=EngineKind.TTS,
                count=count,
            ),
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


def _policy(settings: Settings, first_answer_seconds: float) -> FallbackPolicy:
    return FallbackPolicy(
        first_answer_seconds=first_answer_seconds,
        failures=settings.breaker.failures,
        pause_seconds=settings.breaker.pause_seconds,
    )
