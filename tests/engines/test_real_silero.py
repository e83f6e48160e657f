from __future__ import annotations

import numpy as np
import pytest
import soxr
import trio

from xiaozhi_trio.config.engines import HibariSettings, SileroSettings
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.tts.hibari import HibariSynthesizer
from xiaozhi_trio.engines.vad.silero import SileroDetector

pytestmark = pytest.mark.models

RATE = 16_000


async def english_speech(models: ModelStore, sentence: str) -> bytes:
    synthesizer = HibariSynthesizer(HibariSettings(), models)
    await synthesizer.load()
    async with synthesizer.synthesize(sentence) as chunks:
        (chunk,) = [chunk async for chunk in chunks]
    await synthesizer.aclose()
    samples = np.frombuffer(chunk.pcm, "<i2")
    return bytes(soxr.resample(samples, chunk.sample_rate, RATE).astype("<i2").tobytes())


async def test_speech_is_told_from_noise_and_silence() -> None:
    models = ModelStore(default_model_directory())
    detector = SileroDetector(SileroSettings(), models)
    await detector.load()
    speech = await english_speech(models, "Please switch on the light in the kitchen.")
    noise = (np.random.default_rng(1).standard_normal(3 * RATE) * 600).astype("<i2").tobytes()

    voiced = await detector.open_stream().accept(speech)
    assert np.mean(np.array(voiced) > 0.5) > 0.5
    for quiet in (noise, bytes(6 * RATE)):
        assert max(await detector.open_stream().accept(quiet)) < 0.5
    await detector.aclose()


async def test_streams_are_independent_of_company_and_chunking() -> None:
    models = ModelStore(default_model_directory())
    detector = SileroDetector(SileroSettings(), models)
    await detector.load()
    speech = await english_speech(models, "Good morning.")
    alone = await detector.open_stream().accept(speech)
    in_company: list[list[float]] = []

    async def listen() -> None:
        stream = detector.open_stream()
        heard: list[float] = []
        for start in range(0, len(speech), 1920):
            heard.extend(await stream.accept(speech[start : start + 1920]))
        in_company.append(heard)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(listen)
    for heard in in_company:
        np.testing.assert_allclose(heard, alone, atol=1e-3)
    await detector.aclose()
