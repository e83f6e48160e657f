"""Chains of engines: where one fails, is slow or is not there yet, the next one answers.

A request goes to the first engine that is loaded and whose circuit admits it; tried
once more where the failure may pass, then it goes to the next. That ends with the
first piece of an answer: what was begun is never repeated, and a failure after it
goes up. All engines but the last have a limited time for their first piece.

Every recogniser, language model and synthesizer is used through a chain, most of
them of one engine: which then still is retried and has its circuit breaker.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.fallback_link import (
    Answer,
    Count,
    FallbackPolicy,
    Link,
    Question,
    uncounted,
)
from xiaozhi_trio.engines.pieces import (
    NO_SPEECH,
    reply_fault,
    speech_fault,
    transcript_fault,
)
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    PcmChunk,
    SpeechRecognizer,
    SpeechSynthesizer,
    Transcript,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.breaker import CircuitStatus
    from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall, ToolSpec
    from xiaozhi_trio.engines.slots import EngineSlot

EngineT = TypeVar("EngineT", bound=Engine)
T = TypeVar("T")


class FallbackChain(Generic[EngineT]):
    """Engines of one kind, in the order in which they are asked."""

    def __init__(
        self,
        slots: Sequence[EngineSlot[EngineT]],
        policy: FallbackPolicy,
        *,
        kind: str = "",
        count: Count = uncounted,
    ) -> None:
        """`kind` is for the log and the counters."""
        self._links = [Link(slot, policy, kind, count) for slot in slots]
        self._kind = kind
        self._count = count

    @property
    def name(self) -> str:
        """The names of the engines: `openai or llama`."""
        return " or ".join(link.name for link in self._links)

    @property
    def is_busy(self) -> bool:
        """The engine that would be asked now would let the caller wait."""
        return next((link.slot.is_busy for link in self._links if link.engine is not None), False)

    @property
    def first(self) -> EngineT | None:
        """The engine that would be asked now."""
        return next((link.engine for link in self._links if link.engine is not None), None)

    @property
    def circuits(self) -> Sequence[CircuitStatus]:
        """The state of each engine's circuit breaker."""
        return [link.circuit for link in self._links]

    async def load(self) -> None:
        """Load all at once; returns when each is ready or has failed for good."""
        async with trio.open_nursery() as nursery:
            for link in self._links:
                nursery.start_soon(link.slot.load)

    async def aclose(self) -> None:
        """Close all, also where closing one of them raises."""
        async with AsyncExitStack() as stack:
            for link in self._links:
                stack.push_async_callback(link.slot.aclose)

    @asynccontextmanager
    async def ask(self, question: Question[EngineT, T]) -> AsyncIterator[Answer[T]]:
        """The answer of the first engine that gives one; leaving the block ends it.

        Entering waits for the first piece, and raises `EngineError` where no engine gave
        one; so does the iterator where an answer breaks off.
        """
        async with AsyncExitStack() as stack:
            yield await self._first_answer(stack, question)

    async def _first_answer(
        self, stack: AsyncExitStack, question: Question[EngineT, T]
    ) -> Answer[T]:
        failures: list[EngineError] = []
        for number, link in enumerate(self._links):
            engine = link.engine
            if engine is None:
                continue
            alone = all(later.engine is None for later in self._links[number + 1 :])
            try:
                answer = await stack.enter_async_context(link.ask(question, engine, alone=alone))
            except EngineError as error:
                failures.append(error)
                continue
            if number:
                self._count("engine_fallbacks", kind=self._kind, engine=link.name)
            return answer
        raise self._none(failures)

    def _none(self, failures: Sequence[EngineError]) -> EngineError:
        match failures:
            case []:
                reasons = "; ".join(f"{link.name} {link.obstacle}" for link in self._links)
                return EngineError(
                    f"nothing to ask: {reasons}",
                    engine=self.name,
                    category=EngineErrorCategory.UNAVAILABLE,
                    retryable=True,
                )
            case [error]:
                return error
        failed = EngineError(
            f"none answers: {'; '.join(map(str, failures))}",
            engine=self.name,
            category=failures[0].category,
            retryable=any(error.retryable for error in failures),
        )
        failed.__cause__ = failures[-1]
        return failed


class _Fallback(Generic[EngineT]):
    """What the engines over a chain have in common."""

    def __init__(self, chain: FallbackChain[EngineT]) -> None:
        self._chain = chain

    @property
    def name(self) -> str:
        """The names of its engines; an answer tells the one that gave it."""
        return self._chain.name

    @property
    def is_busy(self) -> bool:
        """The engine that would be asked now would let the caller wait."""
        return self._chain.is_busy

    async def load(self) -> None:
        """Load all engines; returns when each is ready or has failed for good."""
        await self._chain.load()

    async def aclose(self) -> None:
        """Close all engines."""
        await self._chain.aclose()


class FallbackRecognizer(_Fallback[SpeechRecognizer]):
    """A `SpeechRecognizer` over a chain; `Transcript.engine` names the one that answered."""

    @property
    def first(self) -> SpeechRecognizer | None:
        """The engine that would be asked now, if any."""
        return self._chain.first

    async def transcribe(self, pcm: bytes) -> Transcript:
        """Recognise one utterance. Raises `EngineError`."""

        @asynccontextmanager
        async def request(
            recognizer: SpeechRecognizer,
        ) -> AsyncIterator[AsyncGenerator[Transcript, None]]:
            async def whole() -> AsyncGenerator[Transcript, None]:
                yield await recognizer.transcribe(pcm)

            async with aclosing(whole()) as transcripts:
                yield transcripts

        async with self._chain.ask(Question(request, transcript_fault)) as answer:
            [transcript] = [piece async for piece in answer]
        return attrs.evolve(transcript, engine=answer.engine)


class FallbackLanguageModel(_Fallback[LanguageModel]):
    """A `LanguageModel` over a chain; the stream of a reply names its engine."""

    def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AbstractAsyncContextManager[AsyncIterator[str | ToolCall]]:
        """Stream the reply; entering waits for its first piece. Raises `EngineError`."""
        return self._chain.ask(Question(lambda model: model.reply(messages, tools), reply_fault))


class FallbackSynthesizer(_Fallback[SpeechSynthesizer]):
    """A `SpeechSynthesizer` over a chain; the stream of a sentence names its engine."""

    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        """Speak one sentence; entering waits for its first chunk. Raises `EngineError`."""
        return self._chain.ask(
            Question(
                lambda synthesizer: synthesizer.synthesize(sentence),
                speech_fault,
                nothing=NO_SPEECH,
            )
        )
