"""Voice detectors, used without trust in their code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.engines.edge import engine_edge
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.engines.protocols import VoiceActivityDetector, VoiceActivityStream


class CheckedDetection:
    """A `VoiceActivityStream` that raises `EngineError` and nothing else."""

    def __init__(self, detector: VoiceActivityDetector) -> None:
        """Opens a stream. Raises `EngineError`."""
        self._detector = detector
        self._failed_reset: EngineError | None = None
        self._stream = self._opened()
        with engine_edge(detector.name, "telling its window"):
            self.window_samples = self._stream.window_samples
            """See `VoiceActivityStream`."""
        size: object = self.window_samples
        if not isinstance(size, int) or size <= 0:
            raise EngineError(
                f"windows of {size!r} samples came, expected a positive number",
                engine=detector.name,
                category=EngineErrorCategory.BAD_RESPONSE,
            )

    def _opened(self) -> VoiceActivityStream:
        with engine_edge(self._detector.name, "opening a stream"):
            return self._detector.open_stream()

    async def accept(self, pcm: bytes) -> Sequence[float]:
        """See `VoiceActivityStream`. Tells what failed in `reset`, and begins anew."""
        if self._failed_reset is not None:
            self._stream = self._opened()
            error, self._failed_reset = self._failed_reset, None
            raise error
        with engine_edge(self._detector.name, "judging audio"):
            return [float(probability) for probability in await self._stream.accept(pcm)]

    def reset(self) -> None:
        """See `VoiceActivityStream`. Raises nothing: the next audio tells what failed."""
        try:
            with engine_edge(self._detector.name, "forgetting"):
                self._stream.reset()
        except EngineError as error:
            self._failed_reset = error
