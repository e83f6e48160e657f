"""Noise before the real detector and recogniser: nothing of it becomes a turn."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
import pytest
import soxr
import trio

from xiaozhi_trio.config.engines import KokoroSettings, SileroSettings, WhisperSettings
from xiaozhi_trio.config.settings import ListeningSettings
from xiaozhi_trio.engines.asr.whisper import WhisperRecognizer
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import LISTENING_RATE, Transcript
from xiaozhi_trio.engines.tts.kokoro import KokoroSynthesizer
from xiaozhi_trio.engines.vad.silero import WINDOW_SAMPLES, SileroDetector
from xiaozhi_trio.session.noise_floor import NoiseFloor, level_db
from xiaozhi_trio.session.phantoms import is_phantom
from xiaozhi_trio.testing import noises

pytestmark = pytest.mark.models

SECONDS = 4.0
WINDOW_MS = WINDOW_SAMPLES * 1000 // LISTENING_RATE
WINDOW_BYTES = WINDOW_SAMPLES * 2
SETTINGS = ListeningSettings()

QUESTIONS = ("明天早上北京的天气怎么样？", "How is the weather in London?")
ANSWERS = ("Yes.", "Stop!", "对。", "谢谢。", "好。")


@attrs.frozen
class Ear:
    """What a detector and a recogniser make of the clips."""

    voiced_ms: Mapping[str, int]
    transcripts: Mapping[str, Transcript]

    def hears_a_turn(self, clip: str) -> bool:
        """By the rule of the session, but for the end of the turn."""
        voiced_ms, transcript = self.voiced_ms[clip], self.transcripts[clip]
        return voiced_ms >= SETTINGS.min_voice_ms and not is_phantom(
            transcript.text, voiced_ms, language=transcript.language, expected=("zh", "en")
        )


async def voiced_ms(detector: SileroDetector, pcm: bytes) -> int:
    floor = NoiseFloor()
    windows = 0
    in_voice = False
    for index, probability in enumerate(await detector.open_stream().accept(pcm)):
        level = level_db(pcm[index * WINDOW_BYTES : (index + 1) * WINDOW_BYTES])
        floor.add(level, WINDOW_MS)
        base = SETTINGS.silence_threshold if in_voice else SETTINGS.voice_threshold
        in_voice = probability >= (base if in_voice else floor.threshold(base, level))
        windows += in_voice
    return windows * WINDOW_MS


async def said(engine: KokoroSynthesizer, sentence: str) -> bytes:
    async with engine.synthesize(sentence) as chunks:
        made = [chunk async for chunk in chunks]
    samples = np.frombuffer(b"".join(chunk.pcm for chunk in made), "<i2")
    resampled = soxr.resample(samples, made[0].sample_rate, LISTENING_RATE)
    return bytes(resampled.astype("<i2").tobytes())


async def listen() -> Ear:
    models = ModelStore(default_model_directory(), sources=("hub", "registry"))
    detector = SileroDetector(SileroSettings(), models)
    recognizer = WhisperRecognizer(WhisperSettings(workers=1), models)
    voice = KokoroSynthesizer(KokoroSettings(voice_zh="zm_yunxi", voice_en="zm_yunxi"), models)
    for engine in (detector, recognizer, voice):
        await engine.load()
    pause = bytes(LISTENING_RATE)
    words = {sentence: await said(voice, sentence) for sentence in (*QUESTIONS, *ANSWERS)}
    clips = {name: make(SECONDS) for name, make in noises.NOISES.items()}
    clips["babble"] = noises.babble([words[question] for question in QUESTIONS], SECONDS)
    for name, make in noises.NOISES.items():
        quiet = noises.mixed(bytes(len(pause) * 4) + words[QUESTIONS[0]] + pause)
        clips[f"speech over {name}"] = noises.mixed(quiet, make(len(quiet) / 2 / noises.RATE, -40))
    clips |= {answer: pause + words[answer] + pause for answer in ANSWERS}
    heard = {name: await voiced_ms(detector, pcm) for name, pcm in clips.items()}
    transcripts = {name: await recognizer.transcribe(pcm) for name, pcm in clips.items()}
    for engine in (detector, recognizer, voice):
        await engine.aclose()
    return Ear(heard, transcripts)


@pytest.fixture(scope="module")
def ear() -> Ear:
    return trio.run(listen)


@pytest.mark.parametrize("noise", [*noises.NOISES, "babble"])
def test_noise_is_no_turn(ear: Ear, noise: str) -> None:
    assert not ear.hears_a_turn(noise)


@pytest.mark.parametrize("noise", noises.NOISES)
def test_speech_over_noise_is_one(ear: Ear, noise: str) -> None:
    clip = f"speech over {noise}"
    assert ear.hears_a_turn(clip)
    assert ear.transcripts[clip].text.startswith("明天早上北京的天气")


@pytest.mark.parametrize("answer", ANSWERS)
def test_short_answers_are_heard(ear: Ear, answer: str) -> None:
    assert ear.hears_a_turn(answer), (ear.voiced_ms[answer], ear.transcripts[answer])
