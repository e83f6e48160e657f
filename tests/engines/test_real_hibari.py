from __future__ import annotations

import pytest

from xiaozhi_trio.config.engines import HibariSettings
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.tts.hibari import HibariSynthesizer

pytestmark = pytest.mark.models


async def test_speaks_what_can_be_pronounced() -> None:
    synthesizer = HibariSynthesizer(HibariSettings(), ModelStore(default_model_directory()))
    await synthesizer.load()

    async def seconds(sentence: str) -> float:
        async with synthesizer.synthesize(sentence) as chunks:
            return sum([len(chunk.pcm) / 2 / chunk.sample_rate async for chunk in chunks])

    assert 2 < await seconds("Dr. Smith paid $3.50 at 7:30pm for version 2.0 of NASA's C++.") < 12
    assert await seconds("1" * 40) > 5
    for nothing in ("", "...", "😀", "你好", "?!"):
        assert await seconds(nothing) == 0
    await synthesizer.aclose()
