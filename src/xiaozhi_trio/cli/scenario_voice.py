"""A person whose speech is real: synthesised and understood by the configured engines."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import soxr
import trio

from xiaozhi_trio.cli.folders import model_directory
from xiaozhi_trio.engines.model_store import ModelStore
from xiaozhi_trio.engines.protocols import LISTENING_RATE, SpeechRecognizer, SpeechSynthesizer
from xiaozhi_trio.engines.registry import EngineKind, build_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.config.settings import Settings


class RealVoice:
    """A `Voice` that people would understand as well."""

    is_exact = False

    def __init__(self, synthesizer: SpeechSynthesizer, recognizer: SpeechRecognizer) -> None:
        self._synthesizer = synthesizer
        self._recognizer = recognizer

    async def utter(self, text: str, level: int) -> bytes:
        """The text in speech. Raises `EngineError`."""
        rate, pcm = LISTENING_RATE, b""
        async with self._synthesizer.synthesize(text) as chunks:
            async for chunk in chunks:
                rate, pcm = chunk.sample_rate, pcm + chunk.pcm
        return await trio.to_thread.run_sync(_leveled, pcm, rate, level)

    async def understand(self, pcm: bytes) -> str:
        """What was said. Raises `EngineError`."""
        return (await self._recognizer.transcribe(pcm)).text if pcm else ""


def _leveled(pcm: bytes, rate: int, level: int) -> bytes:
    samples = np.frombuffer(pcm, "<i2").astype(np.float32)
    if not len(samples):
        return b""
    samples = soxr.resample(samples, rate, LISTENING_RATE)
    samples *= level / max(float(np.abs(samples).max()), 1.0)
    return bytes(samples.astype("<i2").tobytes())


@asynccontextmanager
async def real_voice(settings: Settings) -> AsyncIterator[RealVoice]:
    """The configured synthesizer and recogniser, loaded for the block. Raises `EngineError`."""
    models = ModelStore(model_directory(settings), sources=settings.models.sources)
    synthesizer: SpeechSynthesizer = build_engine(EngineKind.TTS, settings, models)
    recognizer: SpeechRecognizer = build_engine(EngineKind.ASR, settings, models)
    try:
        await synthesizer.load()
        await recognizer.load()
        yield RealVoice(synthesizer, recognizer)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await synthesizer.aclose()
            await recognizer.aclose()
