from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import HibariSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer
from xiaozhi_trio.engines.tts.hibari import HibariSynthesizer

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PATIENCE = 5


class Models:
    async def ensure(self, name: str) -> Path:
        raise AssertionError("hibari fetches nothing")


class FakeHibari:
    sample_rate = 24_000
    said: list[str]
    speaking: threading.Event
    may_speak: threading.Event

    def __init__(self, *, threads: int) -> None:
        FakeHibari.said = []
        FakeHibari.speaking = threading.Event()
        FakeHibari.may_speak = threading.Event()
        FakeHibari.may_speak.set()

    def __call__(self, text: str) -> None:
        assert text == "Hello."

    def phonemize(self, text: str) -> list[str]:
        if text == "impossible":
            raise IndexError("list index out of range")
        return text.split("|")

    def from_phonemes(self, phonemes: str) -> npt.NDArray[np.float32]:
        self.said.append(phonemes)
        self.speaking.set()
        assert self.may_speak.wait(PATIENCE)
        return np.array([0.5, -2.0], np.float32)


@pytest.fixture
async def synthesizer(monkeypatch: pytest.MonkeyPatch) -> HibariSynthesizer:
    package = ModuleType("hibari")
    package.Hibari = FakeHibari  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hibari", package)
    synthesizer = HibariSynthesizer(HibariSettings(), Models())
    await synthesizer.load()
    return synthesizer


async def chunks_of(synthesizer: HibariSynthesizer, sentence: str) -> list[PcmChunk]:
    async with synthesizer.synthesize(sentence) as chunks:
        return [chunk async for chunk in chunks]


async def test_sentence_is_one_chunk_turned_down_to_full_scale(
    synthesizer: HibariSynthesizer,
) -> None:
    assert isinstance(synthesizer, SpeechSynthesizer)
    (chunk,) = await chunks_of(synthesizer, "a|b")
    assert chunk.sample_rate == 24_000
    assert np.frombuffer(chunk.pcm, "<i2").tolist() == [8191, -32767] * 2
    assert FakeHibari.said == ["a", "b"]


async def test_what_has_no_sound_is_not_spoken(synthesizer: HibariSynthesizer) -> None:
    assert await chunks_of(synthesizer, "...|ˈ") == []
    assert await chunks_of(synthesizer, "") == []
    assert FakeHibari.said == []


async def test_long_numbers_are_spelled(synthesizer: HibariSynthesizer) -> None:
    await chunks_of(synthesizer, "１2345678901234 a")
    assert FakeHibari.said == ["1 2 3 4 5 6 7 8 9 0 1 2 3 4 a"]


async def test_text_the_library_cannot_read(synthesizer: HibariSynthesizer) -> None:
    with pytest.raises(EngineError, match="hibari: phonemes of the text failed") as caught:
        await chunks_of(synthesizer, "impossible")
    assert caught.value.category is EngineErrorCategory.BAD_REQUEST
    assert len(await chunks_of(synthesizer, "a")) == 1


async def test_cancellation_leaves_the_rest_unsaid(synthesizer: HibariSynthesizer) -> None:
    FakeHibari.may_speak.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chunks_of, synthesizer, "a|b|c")
        assert await trio.to_thread.run_sync(FakeHibari.speaking.wait, PATIENCE)
        assert synthesizer.statistics().busy == 1
        nursery.cancel_scope.cancel()
        nursery.start_soon(_release)
    assert FakeHibari.said == ["a"]


async def test_without_load_and_after_close_it_says_so(synthesizer: HibariSynthesizer) -> None:
    with pytest.raises(EngineError, match="is not loaded"):
        HibariSynthesizer(HibariSettings(), Models()).synthesize("a")
    await synthesizer.aclose()
    with pytest.raises(EngineError, match="is not loaded"):
        synthesizer.synthesize("a")


async def _release() -> None:
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked(0.01)
    FakeHibari.may_speak.set()
