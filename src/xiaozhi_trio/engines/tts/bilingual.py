"""Two synthesizers as one: Mandarin by the first, all else by the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.language import has_chinese
from xiaozhi_trio.engines.protocols import Queued

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer


class BilingualSynthesizer:
    """A `SpeechSynthesizer` that chooses one of two sentence by sentence.

    Sentences may differ in sample rate, the chunks of one sentence never do.
    """

    def __init__(
        self, chinese: SpeechSynthesizer, english: SpeechSynthesizer, *, name: str = "bilingual"
    ) -> None:
        self.name = name
        self._chinese = chinese
        self._english = english

    @property
    def is_busy(self) -> bool:
        """One of the two would let its caller wait; which is asked depends on the sentence."""
        return any(
            isinstance(engine, Queued) and engine.is_busy
            for engine in (self._chinese, self._english)
        )

    async def load(self) -> None:
        """Load both at the same time; raises the `EngineError` of the one that cannot be."""
        failures: list[EngineError] = []
        async with trio.open_nursery() as nursery:

            async def load(engine: SpeechSynthesizer) -> None:
                try:
                    await engine.load()
                except EngineError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(load, self._chinese)
            nursery.start_soon(load, self._english)
        if failures:
            raise failures[0]

    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        """Speak with the first engine if there is any Chinese character, else with the second."""
        engine = self._chinese if has_chinese(sentence) else self._english
        return engine.synthesize(sentence)

    async def aclose(self) -> None:
        """Close both, also where the first cannot be."""
        try:
            await self._chinese.aclose()
        finally:
            await self._english.aclose()
