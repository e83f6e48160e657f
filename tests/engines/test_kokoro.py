from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import KokoroSettings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer
from xiaozhi_trio.engines.tts import kokoro
from xiaozhi_trio.engines.tts.kokoro import MOST_PHONEMES, STYLE_SIZE, KokoroSynthesizer

if TYPE_CHECKING:
    from pathlib import Path

    from xiaozhi_trio.engines.worker import Stop

PATIENCE = 5
SAMPLES_PER_PHONEME = 10
VOICES = {"zf_xiaoxiao": 1.0, "af_heart": 2.0, "zm_yunxi": 3.0}


class FakeModel:
    """Gives ten samples for each phoneme and keeps its inputs."""

    def __init__(self) -> None:
        self.inputs: list[dict[str, Any]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.running = threading.Event()

    def run(self, inputs: dict[str, Any], stop: Stop) -> list[Any] | None:
        self.inputs.append(inputs)
        self.running.set()
        stop.on_set(self.may_run.set)
        assert self.may_run.wait(PATIENCE)
        if stop.is_set:
            return None
        phonemes = inputs["tokens"].shape[1] - 2
        return [np.full(phonemes * SAMPLES_PER_PHONEME, 0.5, np.float32)]

    @property
    def spoken(self) -> list[int]:
        """How many phonemes each run had."""
        return [inputs["tokens"].shape[1] - 2 for inputs in self.inputs]

    @property
    def voices(self) -> set[float]:
        return {float(inputs["style"][0, 0]) for inputs in self.inputs}


class FakePhonemes:
    """One phoneme for each letter or Chinese character."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, text: str) -> str:
        return "".join("a" if character.isalnum() else "." for character in text)


class Models:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[str] = []

    async def ensure(self, name: str) -> Path:
        await trio.lowlevel.checkpoint()
        self.asked.append(name)
        return self._folder / name


@pytest.fixture
def models(tmp_path: Path) -> Models:
    for name, level in VOICES.items():
        folder = tmp_path / ("kokoro-voices-extra" if name == "zm_yunxi" else "kokoro")
        folder.mkdir(exist_ok=True)
        np.full((MOST_PHONEMES, STYLE_SIZE), level, "<f4").tofile(folder / f"{name}.bin")
    (tmp_path / "kokoro" / "kokoro.onnx").touch()
    return Models(tmp_path)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr(kokoro, "open_onnx", lambda *_, threads: model)
    monkeypatch.setattr(kokoro, "EnglishPhonemes", FakePhonemes)
    monkeypatch.setattr(kokoro, "MandarinPhonemes", FakePhonemes)
    return model


@pytest.fixture
async def synthesizer(models: Models, model: FakeModel) -> KokoroSynthesizer:
    synthesizer = KokoroSynthesizer(KokoroSettings(speed=1.25), models)
    await synthesizer.load()
    model.inputs.clear()
    return synthesizer


async def chunks_of(synthesizer: SpeechSynthesizer, sentence: str) -> list[PcmChunk]:
    async with synthesizer.synthesize(sentence) as chunks:
        return [chunk async for chunk in chunks]


async def test_a_chunk_per_clause(synthesizer: KokoroSynthesizer, model: FakeModel) -> None:
    assert isinstance(synthesizer, SpeechSynthesizer)
    chunks = await chunks_of(synthesizer, "明天早上，北京的天气怎么样？")
    assert [chunk.sample_rate for chunk in chunks] == [24_000, 24_000]
    assert [len(chunk.pcm) for chunk in chunks] == [
        2 * SAMPLES_PER_PHONEME * len("明天早上，"),
        2 * SAMPLES_PER_PHONEME * len("北京的天气怎么样？"),
    ]
    assert model.inputs[0]["tokens"][0, [0, -1]].tolist() == [0, 0]
    assert model.inputs[0]["speed"] == np.float32(1.25)


@pytest.mark.parametrize(
    ("sentence", "voice"),
    [("你好", "zf_xiaoxiao"), ("Hello", "af_heart"), ("我用Python", "zf_xiaoxiao")],
)
async def test_one_voice_per_sentence(
    synthesizer: KokoroSynthesizer, model: FakeModel, sentence: str, voice: str
) -> None:
    await chunks_of(synthesizer, sentence)
    assert model.voices == {VOICES[voice]}


@pytest.mark.parametrize("sentence", ["", " ", "……", "?!"])
async def test_nothing_to_pronounce(
    synthesizer: KokoroSynthesizer, model: FakeModel, sentence: str
) -> None:
    assert await chunks_of(synthesizer, sentence) == []
    assert model.inputs == []


async def test_more_phonemes_than_the_model_takes(
    synthesizer: KokoroSynthesizer, model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePhonemes, "__call__", lambda *_: "a" * (MOST_PHONEMES + 5))
    (chunk,) = await chunks_of(synthesizer, "你好")
    assert model.spoken == [MOST_PHONEMES, 5]
    assert len(chunk.pcm) == 2 * SAMPLES_PER_PHONEME * (MOST_PHONEMES + 5)


async def test_next_clause_is_made_meanwhile_and_no_more(
    synthesizer: KokoroSynthesizer, model: FakeModel
) -> None:
    sentence = "一二三四，" + "一二三四五六七八九十一二三四五六七八九十一二三四，" * 3
    async with synthesizer.synthesize(sentence) as chunks:
        await anext(chunks)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(model.inputs) == 2
        assert synthesizer.statistics().busy == 0


async def test_cancellation_interrupts_the_run(
    synthesizer: KokoroSynthesizer, model: FakeModel
) -> None:
    model.may_run.clear()
    model.running.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chunks_of, synthesizer, "你好")
        assert await trio.to_thread.run_sync(model.running.wait, PATIENCE)
        nursery.cancel_scope.cancel()
    assert synthesizer.statistics().busy == 0
    assert len(await chunks_of(synthesizer, "你好")) == 1


async def test_further_voices_are_fetched_only_when_asked_for(
    models: Models, model: FakeModel
) -> None:
    await KokoroSynthesizer(KokoroSettings(), models).load()
    assert models.asked == ["kokoro"]
    synthesizer = KokoroSynthesizer(KokoroSettings(voice_zh="zm_yunxi"), models)
    await synthesizer.load()
    model.inputs.clear()
    await chunks_of(synthesizer, "你好")
    assert model.voices == {VOICES["zm_yunxi"]}


@pytest.mark.parametrize("voice", ["zf_nobody", "../../etc/passwd", ""])
async def test_unknown_voice(models: Models, model: FakeModel, voice: str) -> None:
    with pytest.raises(EngineError, match=r"there is no voice .*af_heart, .*zf_xiaoxiao"):
        await KokoroSynthesizer(KokoroSettings(voice_zh=voice), models).load()


async def test_damaged_voice(models: Models, model: FakeModel, tmp_path: Path) -> None:
    (tmp_path / "kokoro" / "af_heart.bin").write_bytes(b"1234")
    with pytest.raises(EngineError, match=r"reading .*af_heart\.bin failed"):
        await KokoroSynthesizer(KokoroSettings(), models).load()


async def test_without_load_and_after_close_it_says_so(
    models: Models, synthesizer: KokoroSynthesizer
) -> None:
    with pytest.raises(EngineError, match="is not loaded"):
        KokoroSynthesizer(KokoroSettings(), models).synthesize("你好")
    await synthesizer.aclose()
    with pytest.raises(EngineError, match="is not loaded"):
        synthesizer.synthesize("你好")
