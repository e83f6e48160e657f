from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import SileroSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import VoiceActivityDetector, VoiceActivityStream
from xiaozhi_trio.engines.vad import silero
from xiaozhi_trio.engines.vad.silero import CONTEXT_SAMPLES, WINDOW_SAMPLES, SileroDetector

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 5
WINDOW_BYTES = 2 * WINDOW_SAMPLES


class Models:
    async def ensure(self, name: str) -> Path:
        await trio.lowlevel.checkpoint()
        assert name == "silero-vad"
        return Path("nowhere")


class FakeModel:
    """Answers with the loudest sample and keeps count of windows in the state."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.contexts: list[float] = []
        self.failure: EngineError | None = None
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Event()

    def run(self, inputs: dict[str, Any]) -> list[Any]:
        self.running.set()
        assert self.may_run.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        heard, states = inputs["input"], inputs["state"]
        assert heard.dtype == states.dtype == np.float32
        assert heard.shape[1] == CONTEXT_SAMPLES + WINDOW_SAMPLES
        assert inputs["sr"] == 16_000
        self.batches.append(len(heard))
        self.contexts.extend(heard[:, 0].tolist())
        loudest = heard[:, CONTEXT_SAMPLES:].max(axis=1, keepdims=True)
        return [loudest, states + 1]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr(silero, "only_file", lambda *_: Path("model.onnx"))
    monkeypatch.setattr(silero, "open_onnx", lambda *_, threads: model)
    return model


@pytest.fixture
async def detector(model: FakeModel) -> SileroDetector:
    detector = SileroDetector(SileroSettings(), Models())
    await detector.load()
    model.batches.clear()
    model.contexts.clear()
    return detector


def pcm(level: float, samples: int = WINDOW_SAMPLES) -> bytes:
    return np.full(samples, int(level * 32_768), "<i2").tobytes()


async def test_has_the_contract(detector: SileroDetector) -> None:
    assert isinstance(detector, VoiceActivityDetector)
    stream = detector.open_stream()
    assert isinstance(stream, VoiceActivityStream)
    assert stream.window_samples == 512


async def test_one_probability_per_whole_window(detector: SileroDetector) -> None:
    stream = detector.open_stream()
    audio = pcm(0.5) + pcm(0.25) + pcm(0.125)
    assert await stream.accept(audio[:-3]) == [0.5, 0.25]
    assert await stream.accept(audio[-3:-1]) == []
    assert await stream.accept(audio[-1:]) == [0.125]


async def test_window_begins_with_the_end_of_the_one_before(
    detector: SileroDetector, model: FakeModel
) -> None:
    stream = detector.open_stream()
    await stream.accept(pcm(0.5) + pcm(0.25))
    await stream.accept(pcm(0.125))
    assert model.contexts == [0.0, 0.5, 0.25]
    assert stream._memory.state[0, 0] == 3


async def test_reset_forgets(detector: SileroDetector, model: FakeModel) -> None:
    stream = detector.open_stream()
    await stream.accept(pcm(0.5) + b"\1\1")
    stream.reset()
    assert await stream.accept(pcm(0.25)) == [0.25]
    assert model.contexts == [0.0, 0.0]


async def test_windows_that_come_meanwhile_run_together(
    detector: SileroDetector, model: FakeModel
) -> None:
    levels = [0.5, 0.25, 0.125]
    answers: dict[float, Sequence[float]] = {}

    async def listen(level: float) -> None:
        answers[level] = await detector.open_stream().accept(pcm(level))

    model.may_run.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, 1 / 16)
        await trio.testing.wait_all_tasks_blocked()
        for level in levels:
            nursery.start_soon(listen, level)
        await trio.testing.wait_all_tasks_blocked()
        model.may_run.set()
    assert model.batches == [1, 3]
    assert answers == {level: [level] for level in [1 / 16, *levels]}


async def test_streams_of_unequal_length_run_together(
    detector: SileroDetector, model: FakeModel
) -> None:
    answers: list[Sequence[float]] = []

    async def listen(audio: bytes) -> None:
        answers.append(await detector.open_stream().accept(audio))

    model.may_run.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, pcm(0.0))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen, pcm(0.5))
        nursery.start_soon(listen, pcm(0.25) + pcm(0.125))
        await trio.testing.wait_all_tasks_blocked()
        model.may_run.set()
    assert model.batches == [1, 2, 1]
    assert sorted(answers) == [[0.0], [0.25, 0.125], [0.5]]


async def test_cancelling_one_stream_leaves_the_others(
    detector: SileroDetector, model: FakeModel
) -> None:
    answers: list[Sequence[float]] = []
    cancelled = trio.CancelScope()

    async def listen(level: float) -> None:
        answers.append(await detector.open_stream().accept(pcm(level)))

    async def listen_and_leave() -> None:
        with cancelled:
            await listen(0.5)

    model.may_run.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, 0.125)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen_and_leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen, 0.25)
        await trio.testing.wait_all_tasks_blocked()
        cancelled.cancel()
        await trio.testing.wait_all_tasks_blocked()
        model.may_run.set()
    assert answers == [[0.125], [0.25]]
    assert model.batches == [1, 1]


async def test_cancelling_the_one_who_runs_serves_those_who_wait_with_it(
    detector: SileroDetector, model: FakeModel
) -> None:
    answers: list[Sequence[float]] = []
    leader = trio.CancelScope()

    async def lead() -> None:
        with leader:
            await detector.open_stream().accept(pcm(0.5))

    async def listen() -> None:
        answers.append(await detector.open_stream().accept(pcm(0.25)))

    model.may_run.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        model.running.clear()
        model.may_run.set()
        leader.cancel()
    assert answers == [[0.25], [0.25]]


async def test_failure_reaches_everyone_in_the_run(
    detector: SileroDetector, model: FakeModel
) -> None:
    failures: list[EngineError] = []

    async def listen() -> None:
        with pytest.raises(EngineError) as caught:
            await detector.open_stream().accept(pcm(0.5))
        failures.append(caught.value)

    model.failure = EngineError("no", engine="silero", category=EngineErrorCategory.INTERNAL)
    model.may_run.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        model.may_run.set()
    assert failures == [model.failure] * 3
    model.failure = None
    assert await detector.open_stream().accept(pcm(0.5)) == [0.5]


async def test_without_load_and_after_close_it_says_so(detector: SileroDetector) -> None:
    await detector.aclose()
    with pytest.raises(EngineError, match="silero: is not loaded"):
        await detector.open_stream().accept(pcm(0.5))


async def test_runs_keep_a_distance(detector: SileroDetector, model: FakeModel) -> None:
    began = trio.current_time()
    for _ in range(3):
        await detector.open_stream().accept(pcm(0.5))
    assert trio.current_time() - began >= 2 * silero._GATHER_SECONDS


async def test_what_comes_between_two_runs_runs_together(
    detector: SileroDetector, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silero, "_GATHER_SECONDS", 0.1)
    await detector.open_stream().accept(pcm(0.5))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(detector.open_stream().accept, pcm(0.5))
            await trio.testing.wait_all_tasks_blocked()
    assert model.batches == [1, 3]


async def test_cancelling_the_one_who_would_run_next_leaves_it_to_another(
    detector: SileroDetector, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silero, "_GATHER_SECONDS", 0.1)
    await detector.open_stream().accept(pcm(0.5))
    leader = trio.CancelScope()

    async def lead() -> None:
        with leader:
            await detector.open_stream().accept(pcm(0.25))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(detector.open_stream().accept, pcm(0.5))
        await trio.testing.wait_all_tasks_blocked()
        leader.cancel()
    assert leader.cancelled_caught
    assert model.batches == [1, 1]
