"""Chains of scripted engines, on a virtual clock."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from xiaozhi_trio.engines.breaker import CircuitStatus
from xiaozhi_trio.engines.edge import EngineBug
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.fallback import (
    FallbackChain,
    FallbackLanguageModel,
    FallbackRecognizer,
    FallbackSynthesizer,
)
from xiaozhi_trio.engines.fallback_link import TOLD_AGAIN_SECONDS, FallbackPolicy
from xiaozhi_trio.engines.protocols import (
    Attributed,
    LanguageModel,
    PcmChunk,
    Queued,
    SpeechRecognizer,
    SpeechSynthesizer,
    Transcript,
    engine_of,
)
from xiaozhi_trio.engines.retry import PAUSE_SECONDS
from xiaozhi_trio.engines.slots import EngineSlot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from trio.testing import MockClock

POLICY = FallbackPolicy(first_answer_seconds=4.0, failures=3, pause_seconds=10.0)


def broken(
    category: Category = Category.CONNECTIVITY, *, retryable: bool = False, engine: str = "first"
) -> EngineError:
    return EngineError("broken", engine=engine, category=category, retryable=retryable)


@attrs.frozen
class Deaf:
    """A piece that comes after a wait nobody can cancel, as from a thread."""

    seconds: float
    piece: Any


@attrs.define(eq=False)
class Told:
    """An engine of any kind: each request takes the next script, the last one for ever.

    A number in a script is a pause in seconds, an exception is raised, what is `Deaf`
    comes whatever was cancelled meanwhile, all else is given.
    """

    name: str
    scripts: list[list[Any]]
    is_busy: bool = False
    asked: list[Any] = attrs.field(factory=list)
    open: int = 0
    closed: int = 0
    unwinding: float = 0.0
    closing: Exception | None = None

    async def load(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed += 1
        if self.closing is not None:
            raise self.closing

    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        self.asked.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.open += 1
        try:
            # A scope of its own, as a nursery would be, must be left in order.
            with trio.CancelScope():
                async with aclosing(self._pieces(script)) as pieces:
                    yield pieces
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.unwinding)
            self.open -= 1

    async def _pieces(self, script: list[Any]) -> AsyncGenerator[Any, None]:
        for item in script:
            if isinstance(item, (int, float)):
                await trio.sleep(item)
            elif isinstance(item, BaseException):
                raise item
            elif isinstance(item, Deaf):
                with trio.CancelScope(shield=True):
                    await trio.sleep(item.seconds)
                yield item.piece
            else:
                await trio.lowlevel.checkpoint()
                yield item

    def reply(self, messages: Any, tools: Any = ()) -> Any:
        return self.stream(messages)

    def synthesize(self, sentence: Any) -> Any:
        return self.stream(sentence)

    async def transcribe(self, pcm: bytes) -> Any:
        async with self.stream(pcm) as pieces:
            return await anext(pieces)


class FailsToClose(Told):
    @asynccontextmanager
    async def stream(self, request: Any) -> AsyncIterator[AsyncIterator[Any]]:
        async with super().stream(request) as pieces:
            yield pieces
        raise ValueError("cannot close")


@attrs.define(eq=False)
class Chain:
    engines: list[Told]
    counts: Counter[tuple[str, ...]] = attrs.field(factory=Counter)
    policy: FallbackPolicy = POLICY
    slots: list[EngineSlot[Any]] = attrs.field(init=False)
    chain: FallbackChain[Any] = attrs.field(init=False)
    model: FallbackLanguageModel = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.slots = [EngineSlot.of_ready(engine) for engine in self.engines]
        self.chain = FallbackChain(self.slots, self.policy, kind="llm", count=self._count)
        self.model = FallbackLanguageModel(self.chain)

    def _count(self, name: str, **labels: str) -> None:
        assert labels.pop("kind") == "llm"
        self.counts[name, *labels.values()] += 1

    async def say(self) -> tuple[str, str]:
        """Who replied, and what."""
        async with self.model.reply([]) as pieces:
            text = "".join([piece async for piece in pieces])
            assert isinstance(pieces, Attributed)
            return pieces.engine, text

    async def fail(self) -> EngineError:
        with pytest.raises(EngineError) as caught:
            await self.say()
        return caught.value

    @property
    def open(self) -> int:
        return sum(engine.open for engine in self.engines)


def chain(first: list[list[Any]], second: list[list[Any]] | None = None, **more: Any) -> Chain:
    engines = [Told("first", first)]
    if second is not None:
        engines.append(Told("second", second))
    return Chain(engines, **more)


async def read(answer: Any, pieces: list[Any]) -> None:
    """Collect an answer, piece by piece: what came before an error is there too."""
    async with answer as stream:
        async for piece in stream:
            pieces += [piece]


async def test_the_first_one_answers(autojump_clock: MockClock) -> None:
    t = chain([["Hello ", 1, "there."]], [["never"]])
    assert await t.say() == ("first", "Hello there.")
    assert not t.engines[1].asked
    assert not t.counts
    assert t.open == 0


async def test_a_failure_goes_to_the_next(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    t = chain([[broken()]], [["Hello."]])
    assert await t.say() == ("second", "Hello.")
    assert trio.current_time() == 0
    assert t.counts == {
        ("engine_failures", "first", "connectivity"): 1,
        ("engine_fallbacks", "second"): 1,
    }
    assert log_lines == [
        {
            "level": "WARNING",
            "message": "engine request failed",
            "kind": "llm",
            "engine": "first",
            "category": "connectivity",
            "reason": "first: broken (connectivity)",
            "left_out": 0,
        }
    ]


async def test_a_failure_that_may_pass_is_tried_once_more(autojump_clock: MockClock) -> None:
    t = chain([[broken(retryable=True)], ["Hello."]], [["never"]])
    assert await t.say() == ("first", "Hello.")
    assert trio.current_time() == pytest.approx(PAUSE_SECONDS)
    assert t.counts == {("engine_retries", "first"): 1}


async def test_it_is_tried_no_more_than_once(autojump_clock: MockClock) -> None:
    t = chain([[broken(retryable=True)]], [["Hello."]])
    assert await t.say() == ("second", "Hello.")
    assert len(t.engines[0].asked) == 2
    # One request is one failure, however often it was tried.
    assert t.counts["engine_failures", "first", "connectivity"] == 1


async def test_an_engine_alone_is_tried_once_more(autojump_clock: MockClock) -> None:
    t = chain([[broken(Category.RATE_LIMIT, retryable=True)], ["Hello."]])
    assert await t.say() == ("first", "Hello.")


async def test_a_hanging_engine_is_given_up_for_the_next(autojump_clock: MockClock) -> None:
    t = chain([[1000]], [[1, "Hello."]])
    assert await t.say() == ("second", "Hello.")
    assert trio.current_time() == pytest.approx(4 + 1)
    assert t.counts["engine_failures", "first", "timeout"] == 1
    assert t.open == 0


async def test_the_retry_shares_the_time_of_the_first_try(autojump_clock: MockClock) -> None:
    t = chain([[broken(retryable=True)], [1000]], [["Hello."]])
    assert await t.say() == ("second", "Hello.")
    assert trio.current_time() == pytest.approx(4)


async def test_the_last_one_has_all_the_time_there_is(autojump_clock: MockClock) -> None:
    t = chain([[100, "At last."]])
    assert await t.say() == ("first", "At last.")
    t = chain([[100, "At last."]], [[broken(engine="second")]])
    t.engines[1].scripts = [[50, "Me neither."]]
    assert await t.say() == ("second", "Me neither.")


async def test_an_answer_that_began_has_no_deadline(autojump_clock: MockClock) -> None:
    t = chain([["Hello ", 100, "there."]], [["never"]])
    assert await t.say() == ("first", "Hello there.")


async def test_what_a_deaf_engine_gives_after_the_deadline_is_too_late(
    autojump_clock: MockClock,
) -> None:
    t = chain([[Deaf(5, "Late"), 1, "."]], [["Hello ", 1, "there."]])
    assert await t.say() == ("second", "Hello there.")
    assert trio.current_time() == pytest.approx(6)


async def test_where_no_other_is_ready_the_first_has_all_the_time(
    autojump_clock: MockClock,
) -> None:
    first, second = Told("first", [[100, "At last."]]), Told("second", [["never"]])
    slots = [EngineSlot.of_ready(first), EngineSlot(second)]
    said: list[str] = []
    await read(FallbackLanguageModel(FallbackChain(slots, POLICY)).reply([]), said)
    assert said == ["At last."]


async def test_after_the_first_piece_nothing_is_repeated(autojump_clock: MockClock) -> None:
    t = chain([["Hello ", broken(retryable=True)]], [["never"]])
    heard: list[str] = []
    with pytest.raises(EngineError, match="broken"):
        await read(t.model.reply([]), heard)
    assert heard == ["Hello "]
    assert not t.engines[1].asked
    assert t.counts == {("engine_failures", "first", "connectivity"): 1}
    assert t.open == 0


@pytest.mark.parametrize(
    ("garbage", "category", "reason"),
    [
        (None, "bad_response", "NoneType came, expected text"),
        (b"bytes", "bad_response", "bytes came, expected text"),
        (KeyError("choices"), "internal", r"answering raised KeyError\('choices'\)"),
        (RuntimeError("x"), "internal", "is a bug of this engine"),
    ],
)
async def test_garbage(autojump_clock: MockClock, garbage, category, reason) -> None:
    t = chain([[garbage]], [["Hello."]])
    assert await t.say() == ("second", "Hello.")
    assert t.counts["engine_failures", "first", category] == 1
    t = chain([["Well, ", garbage]], [["never"]])
    with pytest.raises(EngineError, match=reason):
        await t.say()


async def test_a_request_that_cannot_even_be_made(autojump_clock: MockClock) -> None:
    class Unloaded(Told):
        def reply(self, messages: Any, tools: Any = ()) -> Any:
            raise broken(Category.UNAVAILABLE)

    class Mistaken(Told):
        def reply(self, messages: Any, tools: Any = ()) -> Any:
            return None

    t = Chain([Unloaded("a", []), Mistaken("b", []), Told("c", [["Hello."]])])
    assert await t.say() == ("c", "Hello.")
    assert t.counts["engine_failures", "a", "unavailable"] == 1
    assert t.counts["engine_failures", "b", "internal"] == 1


async def test_a_bug_is_logged_with_its_traceback(autojump_clock: MockClock) -> None:
    from loguru import logger

    texts: list[str] = []
    handle = logger.add(texts.append, format="{message}", backtrace=False, diagnose=False)
    await chain([[KeyError("oops")]], [["Hello."]]).say()
    await chain([[broken()]], [["Hello."]]).say()
    logger.remove(handle)
    bug, failure = texts
    assert "KeyError: 'oops'" in bug
    assert "Traceback" in bug
    assert failure == "engine request failed\n"


async def test_an_engine_that_fails_to_close_is_told_and_asked_again(
    autojump_clock: MockClock,
) -> None:
    t = Chain([FailsToClose("first", [["Hello."]])])
    for _ in range(POLICY.failures):
        assert isinstance(await t.fail(), EngineBug)
    # It answers: its failures in a row end with each answer.
    assert t.chain.circuits == [CircuitStatus.CLOSED]
    assert t.counts["engine_failures", "first", "internal"] == POLICY.failures


async def test_all_fail(autojump_clock: MockClock) -> None:
    t = chain([[1000]], [[broken(Category.BUSY, engine="second", retryable=True)]])
    error = await t.fail()
    assert str(error) == (
        "first or second: none answers: first: nothing came for 4 s or longer (timeout); "
        "second: broken (busy) (timeout)"
    )
    assert error.retryable
    assert isinstance(error.__cause__, EngineError)
    assert t.open == 0


async def test_the_only_ones_error_is_its_own(autojump_clock: MockClock) -> None:
    error = broken(Category.QUOTA)
    assert await chain([[error]]).fail() is error
    bug = await chain([[KeyError("x")]]).fail()
    assert isinstance(bug, EngineBug)


async def test_an_engine_that_keeps_failing_is_left_alone(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    t = chain([[1000]], [["Hello."]])
    for _ in range(3):
        await t.say()
    assert trio.current_time() == pytest.approx(12)
    assert t.chain.circuits == [CircuitStatus.OPEN, CircuitStatus.CLOSED]
    assert await t.say() == ("second", "Hello.")
    assert trio.current_time() == pytest.approx(12)
    assert len(t.engines[0].asked) == 3
    assert [line["message"] for line in log_lines] == [
        "engine request failed",
        "engine is left alone",
    ]
    assert log_lines[1]["seconds"] == 10
    assert t.counts["engine_circuits_opened", "first"] == 1


async def test_one_request_finds_out_whether_it_answers_again(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    t = chain([[broken()], [broken()], [broken()], [2, "Back."]], [["Hello."]])
    for _ in range(3):
        await t.say()
    await trio.sleep(10)
    said: list[tuple[str, str]] = []

    async def say() -> None:
        said.append(await t.say())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(say)
    assert Counter(said) == {("second", "Hello."): 4, ("first", "Back."): 1}
    assert await t.say() == ("first", "Back.")
    assert log_lines[-1]["message"] == "engine answers again"
    assert t.counts["engine_circuits_closed", "first"] == 1


async def test_a_circuit_that_is_open_everywhere_is_told(autojump_clock: MockClock) -> None:
    t = chain([[broken(Category.UNAVAILABLE)]])
    for _ in range(3):
        await t.fail()
    await trio.sleep(2.5)
    error = await t.fail()
    assert str(error) == (
        "first: nothing to ask: first failed too often and is left alone for 7.5 s (unavailable)"
    )
    assert error.retryable
    await trio.sleep(7.5)
    t.engines[0].scripts = [[1000]]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(t.say)
        await trio.testing.wait_all_tasks_blocked()
        assert "is being tried by another request" in str(await t.fail())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("category", [Category.BUSY, Category.BAD_REQUEST])
async def test_what_is_not_its_fault_opens_no_circuit(
    autojump_clock: MockClock, category: Category
) -> None:
    t = chain([[broken(category)]], [["Hello."]])
    for _ in range(10):
        assert await t.say() == ("second", "Hello.")
    assert t.chain.circuits[0] is CircuitStatus.CLOSED
    assert t.counts["engine_failures", "first", category.value] == 10


async def test_a_queue_in_front_is_no_slowness_of_the_engine(autojump_clock: MockClock) -> None:
    t = chain([[1000]], [["Hello."]])
    t.engines[0].is_busy = True
    for _ in range(5):
        assert await t.say() == ("second", "Hello.")
    assert t.chain.circuits[0] is CircuitStatus.CLOSED


async def test_a_silence_that_somebody_else_ended_counts(autojump_clock: MockClock) -> None:
    t = chain([[1000]])
    for _ in range(3):
        with trio.move_on_after(30):
            await t.say()
    assert t.chain.circuits == [CircuitStatus.OPEN]
    t = chain([["Well, ", 1000]])
    for _ in range(3):
        with trio.move_on_after(30):
            await t.say()
    assert t.chain.circuits == [CircuitStatus.OPEN]


async def test_an_interruption_says_nothing_of_the_engine(autojump_clock: MockClock) -> None:
    t = chain([[1000]])
    for _ in range(5):
        with trio.move_on_after(3.9):
            await t.say()
    assert t.chain.circuits == [CircuitStatus.CLOSED]
    assert not t.counts


async def test_the_log_is_told_once_in_a_while(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    t = chain([[broken()], ["Hello."]] * 50, [["Hello."]])
    for _ in range(20):
        await t.say()
    await trio.sleep(TOLD_AGAIN_SECONDS)
    await t.say()
    assert [line["left_out"] for line in log_lines] == [0, 9]


async def test_one_that_is_not_ready_is_passed_over(autojump_clock: MockClock) -> None:
    loading = EngineSlot(Told("first", [["never"]]))
    ready = EngineSlot.of_ready(Told("second", [["Hello."]]))
    model = FallbackLanguageModel(FallbackChain([loading, ready], POLICY))
    async with model.reply([]) as pieces:
        assert engine_of(pieces, model) == "second"
    alone = FallbackLanguageModel(FallbackChain([loading], POLICY))
    with pytest.raises(EngineError, match=r"nothing to ask: first is not ready \(loading\)"):
        async with alone.reply([]):
            raise AssertionError


@pytest.mark.parametrize("tenths", range(62))
async def test_cancelled_at_any_time_nothing_stays_behind(
    autojump_clock: MockClock, tenths: int
) -> None:
    t = chain(
        [[0.3, broken(retryable=True)], [1000]],
        [[0.5, "Hello ", 0.5, "there."]],
        policy=FallbackPolicy(first_answer_seconds=4.0, failures=1, pause_seconds=0.5),
    )
    with trio.move_on_after(tenths / 10 + 0.05):
        await t.say()
    assert t.open == 0
    assert trio.current_time() == pytest.approx(min(tenths / 10 + 0.05, 5.0))
    # No permit is kept: when the pause is over, a request is let through.
    await trio.sleep(1)
    t.engines[0].scripts = [["Back."]]
    assert await t.say() == ("first", "Back.")


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope right before the given step of the task that made this."""

    scope: trio.CancelScope
    steps: int
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def test_cancelled_at_each_checkpoint_nothing_stays_behind(
    autojump_clock: MockClock,
) -> None:
    for steps in range(1, 100):
        t = chain(
            [[0.1, broken(retryable=True)], [0.1, broken()], ["Back."]],
            [[0.1, "Hello ", 0.1, "there.", 0.1]],
            policy=FallbackPolicy(first_answer_seconds=4.0, failures=1, pause_seconds=0.5),
        )
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            assert await t.say() == ("second", "Hello there.")
        trio.lowlevel.remove_instrument(instrument)
        assert t.open == 0
        if not scope.cancelled_caught:
            break
        t.engines[0].scripts = [["Back."]]
        await trio.sleep(1)
        assert await t.say() == ("first", "Back.")
    assert 8 < steps < 99


async def test_the_one_given_up_has_ended_before_the_next_is_asked(
    autojump_clock: MockClock,
) -> None:
    t = chain([[1000]], [["Hello."]])
    t.engines[0].unwinding = 0.5
    async with t.model.reply([]) as pieces:
        assert t.engines[0].open == 0
        assert trio.current_time() == pytest.approx(4.5)
        assert [piece async for piece in pieces] == ["Hello."]


async def test_leaving_early_ends_the_generation(autojump_clock: MockClock) -> None:
    t = chain([["Hello ", 1000]])
    async with t.model.reply([]) as pieces:
        assert await anext(pieces) == "Hello "
        assert t.open == 1
    assert t.open == 0
    assert not t.counts


async def test_errors_of_the_block_are_not_the_engines(autojump_clock: MockClock) -> None:
    t = chain([["Hello ", 1000]], [["never"]])
    with pytest.raises(EngineError, match="stage") as caught:
        async with t.model.reply([]):
            raise EngineError("stage", engine="tts", category=Category.TIMEOUT)
    assert caught.value.engine == "tts"
    with pytest.raises(ZeroDivisionError):
        async with t.model.reply([]):
            raise ZeroDivisionError
    assert not t.engines[1].asked
    assert not t.counts


async def test_silence_is_an_answer(autojump_clock: MockClock) -> None:
    t = chain([[broken()], [broken()], []], [["never"]])
    t.engines[1].scripts = [["x"]]
    await t.say()
    await t.say()
    assert await t.say() == ("first", "")
    t.engines[0].scripts = [[broken()]]
    await t.say()
    assert t.chain.circuits[0] is CircuitStatus.CLOSED


async def test_a_finished_answer_stays_finished(autojump_clock: MockClock) -> None:
    t = chain([["Hello."]])
    async with t.model.reply([]) as pieces:
        assert [piece async for piece in pieces] == ["Hello."]
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_recognisers(autojump_clock: MockClock) -> None:
    first = Told("first", [[1000], [Transcript("one", "en")], ["garbage"]])
    second = Told("second", [[Transcript("two", engine="its own"), 1000]])
    slots = [EngineSlot.of_ready(first), EngineSlot.of_ready(second)]
    recognizer = FallbackRecognizer(FallbackChain(slots, POLICY))
    assert isinstance(recognizer, SpeechRecognizer)
    assert await recognizer.transcribe(b"12") == Transcript("two", engine="second")
    assert trio.current_time() == pytest.approx(4)
    assert await recognizer.transcribe(b"34") == Transcript("one", "en", "first")
    assert await recognizer.transcribe(b"56") == Transcript("two", engine="second")
    assert first.asked == [b"12", b"34", b"56"]
    assert second.asked == [b"12", b"56"]
    assert first.open == second.open == 0
    assert engine_of(Transcript("", engine="second"), recognizer) == "second"
    assert engine_of(Transcript(""), recognizer) == "first or second"


async def test_synthesizers(autojump_clock: MockClock) -> None:
    sound = PcmChunk(b"\0\0", 24_000)
    first = Told("first", [[PcmChunk(b"\0", 24_000)], [sound, broken()], [sound]])
    second = Told("second", [[PcmChunk(b"\1\1", 16_000)]])
    slots = [EngineSlot.of_ready(first), EngineSlot.of_ready(second)]
    synthesizer = FallbackSynthesizer(FallbackChain(slots, POLICY))
    assert isinstance(synthesizer, SpeechSynthesizer)
    async with synthesizer.synthesize("One.") as chunks:
        assert [chunk.sample_rate async for chunk in chunks] == [16_000]
    heard: list[PcmChunk] = []
    with pytest.raises(EngineError):
        await read(synthesizer.synthesize("Two."), heard)
    assert heard == [sound]
    async with synthesizer.synthesize("Three.") as chunks:
        assert engine_of(chunks, synthesizer) == "first"
    assert second.asked == ["One."]


async def test_a_chain_is_an_engine(autojump_clock: MockClock) -> None:
    t = chain([["Hello."]], [["never"]])
    assert isinstance(t.model, LanguageModel)
    assert isinstance(t.model, Queued)
    assert t.model.name == "first or second"
    t.slots[0]._status = None
    assert not t.model.is_busy
    t.engines[1].is_busy = True
    assert t.model.is_busy
    await t.model.load()
    assert not t.model.is_busy
    t.engines[0].is_busy = True
    assert t.model.is_busy
    t.engines[1].closing = RuntimeError("cannot close")
    with pytest.raises(RuntimeError):
        await t.model.aclose()
    assert [engine.closed for engine in t.engines] == [1, 1]
