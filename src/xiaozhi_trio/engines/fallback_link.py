"""One engine of a chain: what it is asked, how long it has, and what is held against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import attrs
import trio
from loguru import logger

from xiaozhi_trio.engines.breaker import CircuitBreaker, CircuitStatus, Permit
from xiaozhi_trio.engines.edge import EngineBlock, EngineBug, engine_edge
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import Engine
from xiaozhi_trio.engines.retry import PAUSE_SECONDS, is_worth_another_try

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.slots import EngineSlot

EngineT = TypeVar("EngineT", bound=Engine)
EngineT_contra = TypeVar("EngineT_contra", bound=Engine, contravariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

TOLD_AGAIN_SECONDS: Final = 60.0
"""A failing engine is in the log once in this time, with the number of lines left out."""

_NOT_ITS_FAULT: Final = frozenset({EngineErrorCategory.BUSY, EngineErrorCategory.BAD_REQUEST})
"""What says nothing of an engine's health: many ask at once, or one asks for the impossible.

Otherwise a single odd dialogue could take an engine from everybody.
"""


class Count(Protocol):
    """Counts one event, as `telemetry.counters.Counters.count` does."""

    def __call__(self, name: str, **labels: str) -> None:
        """Add one."""


def uncounted(name: str, **labels: str) -> None:
    """A `Count` that counts nothing."""


@attrs.frozen(kw_only=True)
class FallbackPolicy:
    """When a chain gives up an engine."""

    first_answer_seconds: float
    """Longest wait for the first piece of an answer while there is another engine to ask; and
    what is given up after a longer silence counts as the engine's failure."""
    failures: int
    """In a row, after which an engine is left alone."""
    pause_seconds: float
    """How long."""


class Request(Protocol[EngineT_contra, T_co]):
    """One request, put to whichever engine."""

    def __call__(
        self, engine: EngineT_contra, /
    ) -> AbstractAsyncContextManager[AsyncIterator[T_co]]:
        """Ask `engine`; leaving the block ends its work."""


@attrs.frozen
class Question(Generic[EngineT, T]):
    """A request, and what its answer must consist of."""

    request: Request[EngineT, T]
    fault: Callable[[object], str]
    """What is wrong with a piece; "" where nothing is."""
    nothing: str = ""
    """What is wrong with an answer without a piece; "" where nothing is."""


class Answer(Generic[T]):
    """The pieces of an answer, of which the first has come."""

    def __init__(self, stream: _Stream[T], link: Link[Any], permit: Permit) -> None:
        self._stream = stream
        self._link = link
        self._permit = permit
        self._in_hand = True

    @property
    def engine(self) -> str:
        """Name of the engine that answers."""
        return self._link.name

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        """The next piece. Raises `EngineError`, for the engine's bugs too."""
        if not self._in_hand and not self._stream.has_ended:
            with self._link.judged(self._permit):
                await self._stream.advance()
        self._in_hand = False
        if self._stream.has_ended:
            self._permit.completed()
            raise StopAsyncIteration
        return self._stream.piece


class _Stream(Generic[T]):
    """One engine's pieces, one in hand, each checked."""

    piece: T
    """In hand, where the stream has not ended."""

    def __init__(
        self, engine: str, pieces: AsyncIterator[T], fault: Callable[[object], str]
    ) -> None:
        self._engine = engine
        self._pieces = pieces
        self._fault = fault
        self.has_ended = False

    async def advance(self) -> None:
        """Take the next piece, or find the end. Raises `EngineError`."""
        with engine_edge(self._engine, "answering"):
            piece = await anext(self._pieces, _END)
        if isinstance(piece, _End):
            self.has_ended = True
            return
        if fault := self._fault(piece):
            raise EngineError(fault, engine=self._engine, category=EngineErrorCategory.BAD_RESPONSE)
        self.piece = piece


class _End:
    """The end of a stream, for which no piece can be mistaken."""


_END: Final = _End()


class Link(Generic[EngineT]):
    """One engine of a chain: its slot, its circuit breaker, and what the log was told."""

    def __init__(
        self, slot: EngineSlot[EngineT], policy: FallbackPolicy, kind: str, count: Count
    ) -> None:
        self._slot = slot
        self._patience = policy.first_answer_seconds
        self._breaker = CircuitBreaker(failures=policy.failures, pause_seconds=policy.pause_seconds)
        self._kind = kind
        self._count = count
        self._log = logger.bind(kind=kind, engine=self.name)
        self._told_at = -math.inf
        self._untold = 0

    @property
    def name(self) -> str:
        """The engine's name in the configuration."""
        return self._slot.name

    @property
    def slot(self) -> EngineSlot[EngineT]:
        """Where the engine is loaded."""
        return self._slot

    @property
    def circuit(self) -> CircuitStatus:
        """The state of its circuit breaker."""
        return self._breaker.status

    @property
    def engine(self) -> EngineT | None:
        """The engine, where it is loaded and its circuit would let a request through now."""
        return self._slot.ready_nowait() if self._breaker.admits else None

    @property
    def obstacle(self) -> str:
        """Why there is no `engine` to ask."""
        if self._slot.ready_nowait() is None:
            return f"is not ready ({self._slot.status.value})"
        if self.circuit is CircuitStatus.OPEN:
            return f"failed too often and is left alone for {self._breaker.seconds_left:.1f} s"
        return "failed too often and is being tried by another request"

    @asynccontextmanager
    async def ask(
        self, question: Question[EngineT, T], engine: EngineT, *, alone: bool
    ) -> AsyncIterator[Answer[T]]:
        """Its answer, with as much time for the first piece as `alone` gives.

        The cancel scope of that time is around the whole answer: what the engine opens
        within it must be closed within it. Raises `EngineError`.
        """
        # Who waits for other callers is not slow by itself.
        patience = math.inf if self._slot.is_busy else self._patience
        deadline = math.inf if alone else trio.current_time() + self._patience
        with self._breaker.permit() as permit, trio.CancelScope(deadline=deadline) as scope:
            async with AsyncExitStack() as stack:
                with self.judged(permit, patience):
                    stream = await self._begun(stack, question, engine, alone=alone)
                    # What came together with the deadline came too late: the scope is
                    # cancelled already, and would take away the rest.
                    await trio.lowlevel.checkpoint_if_cancelled()
                scope.deadline = math.inf
                self._answered(permit)
                yield Answer(stream, self, permit)
                with self.judged(permit, math.inf):
                    await stack.aclose()
        if scope.cancelled_caught:
            raise self._silence()

    @contextmanager
    def judged(self, permit: Permit, patience: float | None = None) -> Iterator[None]:
        """Around a wait for the engine: hold failures and long silence against it.

        Whoever cancels a wait, the person or a deadline, the engine is to blame for
        it where there was no sign of life for longer than `patience`, in seconds; None
        is that of the policy.
        """
        given_up_from = trio.current_time() + (self._patience if patience is None else patience)
        try:
            yield
        except EngineError as error:
            self._failed(permit, error)
            raise
        except trio.Cancelled:
            if trio.current_time() >= given_up_from:
                self._failed(permit, self._silence())
            raise

    async def _begun(
        self, stack: AsyncExitStack, question: Question[EngineT, T], engine: EngineT, *, alone: bool
    ) -> _Stream[T]:
        began = trio.current_time()
        try:
            return await stack.enter_async_context(self._tried(question, engine))
        except EngineError as error:
            seconds = trio.current_time() - began
            if not is_worth_another_try(error, seconds=seconds, alone=alone):
                raise
            self._count("engine_retries", kind=self._kind, engine=self.name)
            self._log.bind(reason=str(error)).debug("engine request is tried again")
        await trio.sleep(PAUSE_SECONDS)
        return await stack.enter_async_context(self._tried(question, engine))

    @asynccontextmanager
    async def _tried(
        self, question: Question[EngineT, T], engine: EngineT
    ) -> AsyncIterator[_Stream[T]]:
        answer = EngineBlock(self.name, partial(question.request, engine), step="the request")
        async with answer as pieces:
            stream = _Stream(self.name, pieces, question.fault)
            await stream.advance()
            if stream.has_ended and question.nothing:
                raise EngineError(
                    question.nothing, engine=self.name, category=EngineErrorCategory.BAD_RESPONSE
                )
            yield stream

    def _silence(self) -> EngineError:
        return EngineError(
            f"nothing came for {self._patience:g} s or longer",
            engine=self.name,
            category=EngineErrorCategory.TIMEOUT,
            retryable=True,
        )

    def _answered(self, permit: Permit) -> None:
        if permit.answered():
            self._count("engine_circuits_closed", kind=self._kind, engine=self.name)
            self._log.info("engine answers again")

    def _failed(self, permit: Permit, error: EngineError) -> None:
        category = error.category
        self._count("engine_failures", kind=self._kind, engine=self.name, category=category.value)
        bug = error if isinstance(error, EngineBug) else None
        log = self._log.bind(category=category.value, reason=str(error)).opt(exception=bug)
        if category not in _NOT_ITS_FAULT and permit.failed():
            self._count("engine_circuits_opened", kind=self._kind, engine=self.name)
            log.bind(seconds=round(self._breaker.seconds_left, 1)).error("engine is left alone")
            return
        now = trio.current_time()
        if now - self._told_at < TOLD_AGAIN_SECONDS:
            self._untold += 1
            return
        log.bind(left_out=self._untold).warning("engine request failed")
        self._told_at, self._untold = now, 0
