from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soxr
import trio

from xiaozhi_trio.config.engines import HibariSettings, KokoroSettings, WhisperSettings
from xiaozhi_trio.engines.asr.whisper import WhisperRecognizer
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.engines.tts.hibari import HibariSynthesizer
from xiaozhi_trio.engines.tts.kokoro import KokoroSynthesizer

if TYPE_CHECKING:
    from xiaozhi_trio.engines.protocols import SpeechSynthesizer

pytestmark = pytest.mark.models

RATE = 16_000


async def speech(synthesizer: SpeechSynthesizer, sentence: str) -> bytes:
    await synthesizer.load()
    async with synthesizer.synthesize(sentence) as chunks:
        pcm = b"".join([chunk.pcm async for chunk in chunks])
    await synthesizer.aclose()
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), 24_000, RATE)
    return bytes(samples.astype("<i2").tobytes())


async def test_both_languages_silence_and_noise() -> None:
    models = ModelStore(default_model_directory())
    recognizer = WhisperRecognizer(WhisperSettings(), models)
    await recognizer.load()

    english = await speech(
        HibariSynthesizer(HibariSettings(), models), "What is the weather like in London tomorrow?"
    )
    heard = await recognizer.transcribe(english)
    assert heard.language == "en"
    assert re.sub(r"\W", "", heard.text).casefold() == "whatistheweatherlikeinlondontomorrow"

    # Another voice than the one that answers.
    mandarin = await speech(
        KokoroSynthesizer(KokoroSettings(voice_zh="zm_yunxi"), models), "明天早上北京的天气怎么样？"
    )
    heard = await recognizer.transcribe(mandarin)
    assert heard.language == "zh"
    assert heard.text.rstrip("?？") == "明天早上北京的天气怎么样"

    noise = (np.random.default_rng(1).standard_normal(2 * RATE) * 300).astype("<i2").tobytes()
    for nothing in (bytes(RATE), noise):
        assert await recognizer.transcribe(nothing) == Transcript("", None)

    # A cancelled caller does not keep the model from the next one.
    with trio.move_on_after(0.02):
        await recognizer.transcribe(english)
    assert (await recognizer.transcribe(english)).language == "en"
    await recognizer.aclose()
