from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer
from xiaozhi_trio.engines.tts.bilingual import BilingualSynthesizer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

LOAD_SECONDS = 3


class FakeSynthesizer:
    def __init__(self, name: str, rate: int) -> None:
        self.name = name
        self._rate = rate
        self.loaded = False
        self.closed = False
        self.is_busy = False
        self.failure: EngineError | None = None

    async def load(self) -> None:
        if self.failure is not None:
            await trio.lowlevel.checkpoint()
            raise self.failure
        await trio.sleep(LOAD_SECONDS)
        self.loaded = True

    async def aclose(self) -> None:
        self.closed = True
        if self.failure is not None:
            raise self.failure

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        yield self._chunks(sentence)

    async def _chunks(self, sentence: str) -> AsyncGenerator[PcmChunk, None]:
        yield PcmChunk(sentence.encode(), self._rate)


@pytest.fixture
def chinese() -> FakeSynthesizer:
    return FakeSynthesizer("kokoro", 24_000)


@pytest.fixture
def english() -> FakeSynthesizer:
    return FakeSynthesizer("hibari", 22_050)


@pytest.fixture
def bilingual(chinese: FakeSynthesizer, english: FakeSynthesizer) -> BilingualSynthesizer:
    return BilingualSynthesizer(chinese, english)


async def test_either_may_be_busy(
    bilingual: BilingualSynthesizer, chinese: FakeSynthesizer, english: FakeSynthesizer
) -> None:
    assert not bilingual.is_busy
    english.is_busy = True
    assert bilingual.is_busy
    english.is_busy, chinese.is_busy = False, True
    assert bilingual.is_busy


@pytest.mark.parametrize(
    ("sentence", "rate"),
    [("你好。", 24_000), ("打开Wi-Fi", 24_000), ("Hello.", 22_050), ("123", 22_050), ("", 22_050)],
)
async def test_chooses_by_script(bilingual: BilingualSynthesizer, sentence: str, rate: int) -> None:
    assert isinstance(bilingual, SpeechSynthesizer)
    async with bilingual.synthesize(sentence) as chunks:
        assert [chunk async for chunk in chunks] == [PcmChunk(sentence.encode(), rate)]


async def test_both_load_at_once(
    bilingual: BilingualSynthesizer,
    chinese: FakeSynthesizer,
    english: FakeSynthesizer,
    autojump_clock: trio.testing.MockClock,
) -> None:
    began = trio.current_time()
    await bilingual.load()
    assert chinese.loaded
    assert english.loaded
    assert trio.current_time() - began == LOAD_SECONDS


async def test_failed_load_is_told_unwrapped(
    bilingual: BilingualSynthesizer,
    chinese: FakeSynthesizer,
    english: FakeSynthesizer,
    autojump_clock: trio.testing.MockClock,
) -> None:
    chinese.failure = EngineError("no", engine="kokoro", category=EngineErrorCategory.UNAVAILABLE)
    with pytest.raises(EngineError) as caught:
        await bilingual.load()
    assert caught.value is chinese.failure
    assert not english.loaded


async def test_closes_both_even_if_one_fails(
    bilingual: BilingualSynthesizer, chinese: FakeSynthesizer, english: FakeSynthesizer
) -> None:
    chinese.failure = EngineError("no", engine="kokoro", category=EngineErrorCategory.INTERNAL)
    with pytest.raises(EngineError):
        await bilingual.aclose()
    assert chinese.closed
    assert english.closed
