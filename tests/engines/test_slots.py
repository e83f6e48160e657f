from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.breaker import CircuitStatus
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.fallback import FallbackLanguageModel
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.registry import EngineKind
from xiaozhi_trio.engines.slots import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    EngineSet,
    EngineSlot,
    FallbackSlot,
    SlotState,
    SlotStatus,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from xiaozhi_trio.engines.protocols import LanguageModel


def failure(*, retryable: bool = False, message: str = "no model") -> EngineError:
    return EngineError(message, engine="slow", category=Category.UNAVAILABLE, retryable=retryable)


@attrs.define(eq=False)
class Slow:
    """An engine that takes three seconds to load, and fails first as it is told."""

    failures: list[Exception] = attrs.field(factory=list)
    loads: int = 0
    closed: int = 0
    closing: Exception | None = None
    name: str = "slow"

    async def load(self) -> None:
        self.loads += 1
        await trio.sleep(3)
        if self.failures:
            raise self.failures.pop(0)

    async def aclose(self) -> None:
        self.closed += 1
        if self.closing is not None:
            raise self.closing


async def test_ready_waits_for_the_load(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    engine = Slow()
    slot = EngineSlot(engine, kind=EngineKind.ASR)
    assert slot.state == SlotState("slow", SlotStatus.LOADING, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.load)
        await trio.sleep(1)
        assert slot.state == SlotState("slow", SlotStatus.LOADING, pytest.approx(1.0))
        assert await slot.ready() is engine
        assert trio.current_time() == pytest.approx(slot.state.seconds + slot._began)
    assert slot.state == SlotState("slow", SlotStatus.READY, pytest.approx(3.0))
    assert await slot.ready() is engine
    assert log_lines == [
        {
            "level": "INFO",
            "message": "engine ready",
            "kind": "asr",
            "engine": "slow",
            "seconds": 3.0,
        }
    ]


async def test_a_failed_load_is_told_to_everybody(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    slot = EngineSlot(Slow([failure()]))
    caught: list[EngineError] = []

    async def ask() -> None:
        with pytest.raises(EngineError, match="no model") as info:
            await slot.ready()
        caught.append(info.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        nursery.start_soon(slot.load)
    await ask()
    assert len({id(error) for error in caught}) == 3
    assert {(e.engine, e.category, e.retryable) for e in caught} == {
        ("slow", Category.UNAVAILABLE, False)
    }
    assert slot.state == SlotState(
        "slow", SlotStatus.FAILED, pytest.approx(3.0), "slow: no model (unavailable)"
    )
    assert log_lines == [
        {
            "level": "ERROR",
            "message": "engine failed to load",
            "kind": None,
            "engine": "slow",
            "reason": "slow: no model (unavailable)",
            "seconds": 3.0,
            "retry_seconds": None,
        }
    ]


async def test_what_may_pass_is_tried_again(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    engine = Slow([failure(retryable=True) for _ in range(8)])
    slot = EngineSlot(engine)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.load)
        await trio.sleep(3 + FIRST_RETRY_SECONDS / 2)
        assert slot.state.status is SlotStatus.FAILED
        with pytest.raises(EngineError, match="no model"):
            await slot.ready()
        await trio.sleep(FIRST_RETRY_SECONDS)
        assert slot.state.status is SlotStatus.LOADING
        assert slot.state.reason is None
        with trio.move_on_after(0.5) as waiting:
            await slot.ready()
        assert waiting.cancelled_caught
    assert await slot.ready() is engine
    pauses = [2, 4, 8, 16, 32, 60, 60, 60]
    assert [line["retry_seconds"] for line in log_lines[:-1]] == pauses
    assert pauses[0] == FIRST_RETRY_SECONDS
    assert pauses[-1] == LONGEST_RETRY_SECONDS
    assert trio.current_time() - began == pytest.approx(9 * 3 + sum(pauses))


async def test_a_try_that_fails_for_good_is_the_last(autojump_clock: MockClock) -> None:
    engine = Slow([failure(retryable=True), failure(message="damaged")])
    slot = EngineSlot(engine)
    await slot.load()
    assert engine.loads == 2
    with pytest.raises(EngineError, match="damaged"):
        await slot.ready()


async def test_a_bug_of_an_engine_is_told_and_ends_nothing(
    autojump_clock: MockClock, log_lines: Sequence[dict[str, Any]]
) -> None:
    engine = Slow([KeyError("oops")])
    slot = EngineSlot(engine)
    await slot.load()
    assert engine.loads == 1
    reason = "slow: loading raised KeyError('oops'), which is a bug of this engine (internal)"
    assert slot.state == SlotState("slow", SlotStatus.FAILED, pytest.approx(3.0), reason)
    assert log_lines[0]["reason"] == reason
    with pytest.raises(EngineError, match="oops"):
        await slot.ready()


async def test_a_cancelled_load_is_no_failure(autojump_clock: MockClock) -> None:
    slot = EngineSlot(Slow())
    with trio.move_on_after(1):
        await slot.load()
    assert slot.status is SlotStatus.LOADING


async def test_of_ready() -> None:
    engine = Slow()
    slot = EngineSlot.of_ready(engine)
    assert slot.state == SlotState("slow", SlotStatus.READY, 0.0)
    assert await slot.ready() is engine
    assert engine.loads == 0
    await slot.aclose()
    assert engine.closed == 1


def four(**engines: Slow) -> EngineSet:
    slots = {kind: EngineSlot(engines.get(kind, Slow())) for kind in ("vad", "asr", "llm", "tts")}
    return EngineSet(**slots)


async def test_four_load_at_once(autojump_clock: MockClock) -> None:
    engines = four(llm=Slow([failure()]))
    began = trio.current_time()
    await engines.load()
    assert trio.current_time() - began == pytest.approx(3)
    assert {kind: state.status for kind, state in engines.states().items()} == {
        "vad": SlotStatus.READY,
        "asr": SlotStatus.READY,
        "llm": SlotStatus.FAILED,
        "tts": SlotStatus.READY,
    }


async def test_all_four_are_closed_whatever_happens() -> None:
    broken = Slow(closing=failure())
    others = {kind: Slow() for kind in ("vad", "asr", "tts")}
    engines = four(llm=broken, **others)
    with pytest.raises(EngineError):
        await engines.aclose()
    assert [engine.closed for engine in (broken, *others.values())] == [1] * 4


@attrs.define(eq=False)
class Talker(Slow):
    """A language model that takes its own time to load."""

    seconds: float = 3
    is_busy: bool = False

    async def load(self) -> None:
        self.loads += 1
        await trio.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop(0)

    def reply(self, messages: Any, tools: Any = ()) -> Any:
        raise AssertionError("nobody asks here")


def chain(*engines: Talker) -> FallbackSlot[LanguageModel]:
    policy = FallbackPolicy(first_answer_seconds=4, failures=3, pause_seconds=10)
    return FallbackSlot(FallbackLanguageModel, engines, policy, kind=EngineKind.LLM)


async def test_a_chain_is_ready_as_soon_as_one_is(autojump_clock: MockClock) -> None:
    slot = chain(Talker(name="slow"), Talker(name="quick", seconds=1))
    assert slot.state.status is SlotStatus.LOADING
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.load)
        engine = await slot.ready()
        assert trio.current_time() == pytest.approx(1)
        assert engine.name == "slow or quick"
        assert slot.state == SlotState(
            "slow or quick",
            SlotStatus.READY,
            pytest.approx(1),
            chain=(
                SlotState(
                    "slow", SlotStatus.LOADING, pytest.approx(1), circuit=CircuitStatus.CLOSED
                ),
                SlotState(
                    "quick", SlotStatus.READY, pytest.approx(1), circuit=CircuitStatus.CLOSED
                ),
            ),
        )
        assert not slot.state.is_impaired
    assert trio.current_time() == pytest.approx(3)
    assert slot.ready_nowait() is engine
    assert slot.state.seconds == pytest.approx(1)


async def test_a_chain_without_its_first_serves_and_is_impaired(
    autojump_clock: MockClock,
) -> None:
    slot = chain(Talker([failure()], name="first"), Talker(name="second", seconds=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.load)
        await trio.sleep(4)
        assert slot.status is SlotStatus.LOADING
        await slot.ready()
        assert trio.current_time() == pytest.approx(5)
    assert slot.state.status is SlotStatus.READY
    assert slot.state.is_impaired


async def test_a_chain_has_failed_when_all_have(autojump_clock: MockClock) -> None:
    slot = chain(
        Talker([failure(message="no key")], name="first", seconds=1),
        Talker([failure(retryable=True, message="no network")], name="second"),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.load)
        with pytest.raises(EngineError, match="no key"):
            await slot.ready()
        assert trio.current_time() == pytest.approx(3)
        assert slot.status is SlotStatus.FAILED
        await trio.sleep(FIRST_RETRY_SECONDS + 1)
        # The second is tried again: who asks now waits for that.
        assert slot.status is SlotStatus.LOADING
        assert slot.error is None
        await slot.ready()
        assert trio.current_time() == pytest.approx(3 + FIRST_RETRY_SECONDS + 3)
    assert slot.state.chain[0].status is SlotStatus.FAILED


async def test_a_chain_of_one_looks_like_that_one(autojump_clock: MockClock) -> None:
    engine = Talker(name="only")
    slot = chain(engine)
    await slot.load()
    assert slot.state == SlotState(
        "only", SlotStatus.READY, pytest.approx(3), circuit=CircuitStatus.CLOSED
    )
    assert not slot.is_busy
    engine.is_busy = True
    assert slot.is_busy
    await slot.aclose()
    assert engine.closed == 1


async def test_an_open_circuit_impairs() -> None:
    state = SlotState("x", SlotStatus.READY, 1.0, circuit=CircuitStatus.OPEN)
    assert state.is_impaired
    assert SlotState("x", SlotStatus.READY, 1.0, chain=(state,)).is_impaired


async def test_an_engine_that_tells_nothing_is_never_busy() -> None:
    assert not EngineSlot.of_ready(Slow()).is_busy
    talker = Talker()
    slot = EngineSlot.of_ready(talker)
    assert not slot.is_busy
    talker.is_busy = True
    assert slot.is_busy


class Models:
    async def ensure(self, name: str) -> Path:
        raise AssertionError("nothing is loaded here")


def test_the_engines_of_the_settings() -> None:
    pytest.importorskip("onnxruntime")
    settings = Settings()
    openai = {
        kind: attrs.evolve(getattr(settings, kind), engine="openai")
        for kind in ("asr", "llm", "tts")
    }
    engines = EngineSet.of(attrs.evolve(settings, **openai), Models())
    assert {kind: slot._engine.name for kind, slot in engines.slots().items()} == {
        "vad": "silero",
        "asr": "openai",
        "llm": "openai",
        "tts": "openai",
    }


def test_the_fallback_engines_of_the_settings() -> None:
    settings = Settings()
    counted = []
    engines = EngineSet.of(
        attrs.evolve(
            settings,
            asr=attrs.evolve(settings.asr, engine="openai"),
            llm=attrs.evolve(settings.llm, engine="openai", fallback=("llama",)),
            tts=attrs.evolve(settings.tts, engine="openai"),
        ),
        Models(),
        count=lambda name, **labels: counted.append((name, labels)),
    )
    assert engines.llm.name == "openai or llama"
    assert [state.engine for state in engines.states()["llm"].chain] == ["openai", "llama"]
    assert not counted


def test_an_unknown_engine_stops_the_start() -> None:
    settings = Settings()
    wrong = attrs.evolve(settings, vad=attrs.evolve(settings.vad, engine="siler0"))
    with pytest.raises(EngineError, match="silero"):
        EngineSet.of(wrong, Models())
