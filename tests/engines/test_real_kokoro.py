from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.config.engines import KokoroSettings
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.tts.kokoro import SAMPLE_RATE, KokoroSynthesizer

pytestmark = pytest.mark.models


async def seconds(synthesizer: KokoroSynthesizer, sentence: str) -> list[float]:
    """Length of each chunk."""
    async with synthesizer.synthesize(sentence) as chunks:
        return [len(chunk.pcm) / 2 / chunk.sample_rate async for chunk in chunks]


async def test_speaks_mandarin_english_and_both() -> None:
    synthesizer = KokoroSynthesizer(KokoroSettings(), ModelStore(default_model_directory()))
    await synthesizer.load()

    clauses = await seconds(synthesizer, "明天早上，北京的天气怎么样？")
    assert len(clauses) == 2
    assert 2 < sum(clauses) < 8
    plain = sum(await seconds(synthesizer, "我用它写程序。"))
    assert sum(await seconds(synthesizer, "我用Python写程序。")) > plain
    assert 1 < sum(await seconds(synthesizer, "Good morning, how are you?")) < 5
    for nothing in ("……", "😀", " "):
        assert await seconds(synthesizer, nothing) == []

    async with synthesizer.synthesize("今天天气很好我们一起出去走走吧") as chunks:
        with trio.move_on_after(0.1) as scope:
            await anext(chunks)
        assert scope.cancelled_caught
    assert synthesizer.statistics().busy == 0
    await synthesizer.aclose()
    assert SAMPLE_RATE == 24_000
