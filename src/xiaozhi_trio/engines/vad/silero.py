"""Silero voice activity detection on the CPU.

The model hears 512 samples at 16 kHz with the 64 samples before them, and keeps
a state of 2 x 128 numbers per stream (source: the wrapper in the silero-vad
package, version 6). It takes many streams at once, which more than halves the
cost of each, and a run costs a trip to a thread, because it is far too long for
the event loop of a server with a hundred microphones. So runs keep a distance, and
what comes meanwhile goes together into the next one; figures in docs/performance.md.
"""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt
import outcome
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import only_file
from xiaozhi_trio.engines.onnx import OnnxModel, open_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.config.engines import SileroSettings
    from xiaozhi_trio.engines.model_folder import ModelFolder

WINDOW_SAMPLES = 512
CONTEXT_SAMPLES = 64
STATE_SHAPE = (2, 128)

_GATHER_SECONDS = 0.005
"""From the beginning of one run to that of the next; a lone microphone never waits for it."""

_BYTES_PER_SAMPLE = 2
_WINDOW_BYTES = WINDOW_SAMPLES * _BYTES_PER_SAMPLE
_SAMPLE_RATE = np.array(16_000, dtype=np.int64)
_FULL_SCALE = 32_768.0


@attrs.define(eq=False)
class _Memory:
    """What the model remembers of one stream."""

    context: npt.NDArray[np.float32] = attrs.field(
        factory=lambda: np.zeros(CONTEXT_SAMPLES, np.float32)
    )
    state: npt.NDArray[np.float32] = attrs.field(factory=lambda: np.zeros(STATE_SHAPE, np.float32))


@attrs.define(eq=False)
class _Request:
    """Successive windows of one stream, waiting for their probabilities."""

    memory: _Memory
    windows: npt.NDArray[np.float32]
    """Shape (windows, WINDOW_SAMPLES), full scale 1."""
    probabilities: list[float] = attrs.field(factory=list)
    failure: BaseException | None = None
    is_answered: bool = False


class SileroDetector:
    """A `VoiceActivityDetector`; one model serves all streams."""

    def __init__(
        self, settings: SileroSettings, models: ModelFolder, *, name: str = "silero"
    ) -> None:
        self.name = name
        self._settings = settings
        self._models = models
        self._model: OnnxModel | None = None
        self._limiter = trio.CapacityLimiter(1)
        self._is_running = False
        self._not_before = -math.inf
        self._answered = trio.lowlevel.ParkingLot()
        # Bounded by the number of streams: each waits for one answer at a time.
        self._pending: list[_Request] = []

    async def load(self) -> None:
        """Load the model and run it once. Raises `EngineError`."""
        folder = await self._models.ensure("silero-vad")

        def open_warm() -> OnnxModel:
            model = open_onnx(self.name, only_file(folder, "*.onnx", self.name), threads=1)
            _infer(model, [_Request(_Memory(), np.zeros((1, WINDOW_SAMPLES), np.float32))])
            return model

        self._model = await trio.to_thread.run_sync(
            open_warm, abandon_on_cancel=True, limiter=self._limiter
        )

    def open_stream(self) -> SileroStream:
        """A stream for one microphone."""
        return SileroStream(self)

    async def aclose(self) -> None:
        """Let go of the model."""
        self._model = None
        await trio.lowlevel.checkpoint()

    async def probabilities(self, request: _Request) -> list[float]:
        """Answer one request, together with all that wait by then."""
        model = self._model
        if model is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )
        self._pending.append(request)
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not request.is_answered:
                if self._is_running:
                    await self._answered.park()
                else:
                    await self._run_pending(model)
        finally:
            if request in self._pending:
                self._pending.remove(request)
        if request.failure is not None:
            raise request.failure
        return request.probabilities

    async def _run_pending(self, model: OnnxModel) -> None:
        """Answer all that wait once the next run is due; one task at a time does so for all."""
        self._is_running = True
        try:
            await trio.sleep_until(self._not_before)
            self._not_before = trio.current_time() + _GATHER_SECONDS
            batch, self._pending = self._pending, []
            # Whoever is cancelled here sees it through: others wait for the same milliseconds.
            with trio.CancelScope(shield=True):
                answer = await trio.to_thread.run_sync(
                    outcome.capture, _infer, model, batch, limiter=self._limiter
                )
            for request in batch:
                request.is_answered = True
                request.failure = getattr(answer, "error", None)
        finally:
            self._is_running = False
            self._answered.unpark_all()


class SileroStream:
    """A `VoiceActivityStream`."""

    def __init__(self, detector: SileroDetector) -> None:
        self._detector = detector
        self._rest = b""
        self._memory = _Memory()

    @property
    def window_samples(self) -> int:
        """Samples that one probability stands for."""
        return WINDOW_SAMPLES

    async def accept(self, pcm: bytes) -> Sequence[float]:
        """One probability for each window that `pcm` completes."""
        audio = self._rest + pcm
        whole = len(audio) - len(audio) % _WINDOW_BYTES
        self._rest = audio[whole:]
        if not whole:
            await trio.lowlevel.checkpoint()
            return []
        samples = np.frombuffer(audio, dtype="<i2", count=whole // _BYTES_PER_SAMPLE)
        windows = samples.astype(np.float32).reshape(-1, WINDOW_SAMPLES) / _FULL_SCALE
        return await self._detector.probabilities(
            _Request(self._memory, windows.astype(np.float32, copy=False))
        )

    def reset(self) -> None:
        """Forget all audio so far."""
        self._rest = b""
        # A new object, so that a run under way cannot write into it.
        self._memory = _Memory()


def _infer(model: OnnxModel, batch: list[_Request]) -> None:
    """Run the windows of all requests, each stream's in order; blocks."""
    for step in count():
        current = [request for request in batch if step < len(request.windows)]
        if not current:
            return
        _infer_step(model, current, step)


def _infer_step(model: OnnxModel, requests: list[_Request], step: int) -> None:
    heard = np.stack(
        [np.concatenate([request.memory.context, request.windows[step]]) for request in requests]
    )
    states = np.stack([request.memory.state for request in requests], axis=1)
    outputs: list[Any] | None = model.run({"input": heard, "state": states, "sr": _SAMPLE_RATE})
    if outputs is None:
        return
    voice, new_states = outputs
    for index, request in enumerate(requests):
        request.memory.context = heard[index, -CONTEXT_SAMPLES:]
        request.memory.state = new_states[:, index]
        request.probabilities.append(float(voice[index, 0]))
