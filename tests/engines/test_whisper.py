from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import WhisperSettings
from xiaozhi_trio.engines.asr.whisper import WhisperRecognizer, is_repetitive, loop_body
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import SpeechRecognizer, Transcript

PATIENCE = 5
RATE = 16_000


class Models:
    async def ensure(self, name: str) -> Path:
        await trio.lowlevel.checkpoint()
        return Path("nowhere") / name


class FakeTokenizer:
    no_timestamps = 50_000

    def __init__(self, _: object, multilingual: bool, *, task: str, language: str) -> None:
        assert task == "transcribe"
        self.sot_sequence = [1, language, 3]

    def decode(self, tokens: list[str]) -> str:
        return "".join(tokens)


class FakeWhisper:
    """Stands for `faster_whisper.WhisperModel`: says what the test scripted."""

    instance: FakeWhisper

    def __init__(self, path: str, **options: Any) -> None:
        if path.endswith("broken"):
            raise RuntimeError("unsupported model")
        FakeWhisper.instance = self
        self.options = options
        self.supported_languages = ["en", "zh", "fr"]
        self.hf_tokenizer = object()
        self.max_length = 448
        self.model = SimpleNamespace(
            is_multilingual=True, detect_language=self._detect, generate=self._generate
        )
        self.ranking = ["fr", "en", "zh"]
        self.says: list[list[str]] = []
        self.score = -0.2
        self.scores: list[float] = []
        self.no_speech = 0.0
        self.windows: list[float] = []
        self.languages: list[str] = []
        self.may_encode = threading.Event()
        self.may_encode.set()

    def feature_extractor(self, samples: Any, *, padding: int) -> float:
        assert samples.dtype == np.float32
        return (len(samples) + padding) / RATE

    def encode(self, features: float) -> float:
        assert self.may_encode.wait(PATIENCE)
        self.windows.append(features)
        return features

    def _detect(self, encoded: float) -> list[list[tuple[str, float]]]:
        return [[(f"<|{code}|>", 0.5) for code in self.ranking]]

    def _generate(self, encoded: float, prompts: list[list[Any]], **options: Any) -> list[Any]:
        assert options["beam_size"] == 1
        assert prompts[0][-1] == FakeTokenizer.no_timestamps
        self.languages.append(prompts[0][1])
        tokens = self.says.pop(0) if self.says else ["hm"]
        tokens = tokens[: options["max_length"] - len(prompts[0])]
        return [
            SimpleNamespace(
                sequences_ids=[tokens],
                scores=[self.scores.pop(0) if self.scores else self.score],
                no_speech_prob=self.no_speech,
            )
        ]


class FakeOpenCC:
    def __init__(self, conversion: str) -> None:
        assert conversion == "t2s"

    def convert(self, text: str) -> str:
        return text.replace("氣", "气")


@pytest.fixture(autouse=True)
def _libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("faster_whisper")
    package.WhisperModel = FakeWhisper  # type: ignore[attr-defined]
    tokenizer = ModuleType("faster_whisper.tokenizer")
    tokenizer.Tokenizer = FakeTokenizer  # type: ignore[attr-defined]
    opencc = ModuleType("opencc")
    opencc.OpenCC = FakeOpenCC  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", package)
    monkeypatch.setitem(sys.modules, "faster_whisper.tokenizer", tokenizer)
    monkeypatch.setitem(sys.modules, "opencc", opencc)


async def loaded(**settings: Any) -> tuple[WhisperRecognizer, FakeWhisper]:
    recognizer = WhisperRecognizer(WhisperSettings(**settings), Models())
    await recognizer.load()
    whisper = FakeWhisper.instance
    whisper.windows.clear()
    whisper.languages.clear()
    return recognizer, whisper


def speech(seconds: float) -> bytes:
    return np.full(int(seconds * RATE), 3000, "<i2").tobytes()


async def test_load_warms_up_every_language() -> None:
    recognizer = WhisperRecognizer(WhisperSettings(workers=3), Models())
    assert isinstance(recognizer, SpeechRecognizer)
    await recognizer.load()
    assert FakeWhisper.instance.languages == ["zh", "en"]
    assert FakeWhisper.instance.options["num_workers"] == 3
    assert FakeWhisper.instance.options["cpu_threads"] == 1


@pytest.mark.parametrize(("seconds", "window"), [(0.5, 4), (3, 4), (5, 6), (12.5, 13.5)])
async def test_window_is_as_short_as_the_speech(seconds: float, window: float) -> None:
    recognizer, whisper = await loaded()
    whisper.says = [["Hel", "lo"]]
    assert await recognizer.transcribe(speech(seconds)) == Transcript("Hello", "en")
    assert whisper.windows == [window]


async def test_likeliest_expected_language_wins_and_chinese_is_simplified() -> None:
    recognizer, whisper = await loaded()
    whisper.ranking = ["fr", "zh", "en"]
    whisper.says = [[" 天氣 "]]
    assert await recognizer.transcribe(speech(1)) == Transcript("天气", "zh")


async def test_any_language_where_none_is_expected() -> None:
    recognizer, _ = await loaded(languages=())
    assert (await recognizer.transcribe(speech(1))).language == "fr"


async def test_one_expected_language_is_not_detected() -> None:
    recognizer, whisper = await loaded(languages=("zh",))
    whisper.ranking = []
    assert (await recognizer.transcribe(speech(1))).language == "zh"


async def test_english_only_model() -> None:
    recognizer, whisper = await loaded(languages=("en",))
    whisper.model.is_multilingual = False
    assert (await recognizer.transcribe(speech(1))).language == "en"


async def test_loop_is_decoded_again_in_the_full_window() -> None:
    recognizer, whisper = await loaded()
    whisper.says = [["the weather? "] * 2, ["the weather?"]]
    assert await recognizer.transcribe(speech(2)) == Transcript("the weather?", "en")
    assert whisper.windows == [4, 30]


async def test_unlikely_text_is_decoded_again_in_the_full_window() -> None:
    recognizer, whisper = await loaded()
    whisper.scores = [-1.5, -0.5]
    whisper.says = [["Yes"], ["Yes."]]
    assert (await recognizer.transcribe(speech(0.5))).text == "Yes."
    assert whisper.windows == [4, 30]


async def test_text_longer_than_speech_can_be_is_decoded_again_then_dropped() -> None:
    recognizer, whisper = await loaded()
    endless = [f"{number} " for number in range(1000)]
    whisper.says = [endless, ["fine"]]
    assert (await recognizer.transcribe(speech(1))).text == "fine"
    whisper.says = [endless, endless]
    assert await recognizer.transcribe(speech(1)) == Transcript("", None)


async def test_a_word_is_heard_though_every_window_makes_a_loop_of_it() -> None:
    recognizer, whisper = await loaded()
    whisper.says = [["Yes. "] * 100, ["Yes. "] * 1000]
    assert await recognizer.transcribe(speech(0.5)) == Transcript("Yes.", "en")
    whisper.says = [["Yes. "] * 100, [f"{number} " for number in range(1000)]]
    assert await recognizer.transcribe(speech(0.5)) == Transcript("Yes.", "en")
    whisper.score = -1.5
    whisper.says = [["Yes. "] * 100, ["Yes. "] * 1000]
    assert await recognizer.transcribe(speech(0.5)) == Transcript("", None)


@pytest.mark.parametrize(
    ("score", "no_speech", "heard"),
    [(-0.8, 0.1, True), (-0.3, 0.9, True), (-1.0, 0.9, False), (-1.5, 0.1, False)],
)
async def test_made_up_text_is_dropped(score: float, no_speech: float, heard: bool) -> None:
    recognizer, whisper = await loaded()
    whisper.score, whisper.no_speech = score, no_speech
    assert bool((await recognizer.transcribe(speech(1))).text) is heard


@pytest.mark.parametrize("pcm", [b"", b"\0", bytes(RATE), np.full(RATE, 20, "<i2").tobytes()])
async def test_silence_never_reaches_the_model(pcm: bytes) -> None:
    recognizer, whisper = await loaded()
    assert await recognizer.transcribe(pcm) == Transcript("", None)
    assert whisper.windows == []


async def test_long_speech_is_recognised_in_parts() -> None:
    recognizer, whisper = await loaded()
    whisper.says = [["One"], ["two"], ["three"]]
    assert (await recognizer.transcribe(speech(70))).text == "One two three"
    assert whisper.windows == [30, 30, 13]


async def test_cancelled_caller_leaves_at_once_and_the_model_soon_after() -> None:
    recognizer, whisper = await loaded(workers=1)
    whisper.may_encode.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recognizer.transcribe, speech(70))
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert recognizer.statistics().busy == 1
    whisper.may_encode.set()
    assert (await recognizer.transcribe(speech(1))).text == "hm"
    assert whisper.windows == [30, 4]


async def test_full_queue_is_busy() -> None:
    recognizer, whisper = await loaded(workers=1, queue=1)
    whisper.may_encode.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(recognizer.transcribe, speech(1))
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(EngineError) as caught:
            await recognizer.transcribe(speech(1))
        whisper.may_encode.set()
    assert caught.value.category is EngineErrorCategory.BUSY


async def test_unknown_language_and_broken_model_fail_to_load() -> None:
    recognizer = WhisperRecognizer(WhisperSettings(languages=("zh", "tlh")), Models())
    with pytest.raises(EngineError, match="`languages` names tlh; whisper-base knows en, fr, zh"):
        await recognizer.load()
    recognizer = WhisperRecognizer(WhisperSettings(model="broken"), Models())
    with pytest.raises(EngineError, match=r"loading .*broken failed: RuntimeError: unsupported"):
        await recognizer.load()
    with pytest.raises(EngineError, match="is not loaded"):
        await recognizer.transcribe(speech(1))


async def test_closed_recognizer_refuses() -> None:
    recognizer, _ = await loaded()
    await recognizer.aclose()
    with pytest.raises(EngineError):
        await recognizer.transcribe(speech(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("明天早上怎么样?明天早上怎么样?", True),
        ("I know. I know. I know.", True),
        ("啊啊啊啊", True),
        ("What is the weather like?", False),
        ("好的好的", False),
        ("very very good", False),
        ("It costs 10000", False),
        ("", False),
    ],
)
def test_is_repetitive(text: str, expected: bool) -> None:
    assert is_repetitive(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes. Yes. Yes. Yes", "Yes."),
        ("I know. I know. I know.", "I know."),
        ("啊啊啊啊", "啊"),
        ("明天早上怎么样?明天早上怎么样?明天", "明天早上怎么样?"),
        ("Well. Yes. Yes. Yes. Yes.", ""),
        ("Yes. Yes. Yes. Yes. No.", ""),
        ("好的好的", ""),
        ("What is the weather like?", ""),
        ("", ""),
    ],
)
def test_loop_body(text: str, expected: str) -> None:
    assert loop_body(text) == expected
