"""hibari speech synthesis on the CPU: English, a few milliseconds a sentence.

Model, dictionaries and the voice are inside the hibari-tts package, so nothing is
fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import library_errors, optional_packages
from xiaozhi_trio.engines.protocols import PcmChunk
from xiaozhi_trio.engines.tts.english_phonemes import speakable
from xiaozhi_trio.engines.tts.waveform import has_sound, speak_ahead, to_pcm
from xiaozhi_trio.engines.worker import ModelWorkers, Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.config.engines import HibariSettings
    from xiaozhi_trio.engines.admission import WorkerStatistics
    from xiaozhi_trio.engines.model_folder import ModelFolder

_WARM_UP = "Hello."


class HibariSynthesizer:
    """A `SpeechSynthesizer` for English; it passes over characters of other scripts."""

    def __init__(
        self, settings: HibariSettings, models: ModelFolder, *, name: str = "hibari"
    ) -> None:
        self.name = name
        self._settings = settings
        self._models = models
        self._voice: Any = None
        self._workers = ModelWorkers(self.name, workers=1, queue=settings.queue)

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._workers.is_busy

    def statistics(self) -> WorkerStatistics:
        """How busy the model is."""
        return self._workers.statistics()

    async def load(self) -> None:
        """Load model and dictionaries and say a word. Raises `EngineError`."""

        def load_and_warm_up(_: object) -> Any:
            with optional_packages(self.name):
                from hibari import Hibari

            with library_errors(self.name, "loading"):
                voice = Hibari(threads=1)
                voice(_WARM_UP)
            return voice

        self._voice = await self._workers.run(load_and_warm_up, abandon=True)

    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        """Speak one sentence, whole: cutting it would gain nothing. Raises `EngineError`."""
        voice = self._voice
        if voice is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )

        async def speak(text: str) -> PcmChunk | None:
            pcm = await self._workers.run(lambda stop: self._speak(voice, text, stop))
            return PcmChunk(pcm, voice.sample_rate) if pcm else None

        return speak_ahead([sentence], speak)

    async def aclose(self) -> None:
        """Wait for the thread and unload the model."""
        await self._workers.aclose()
        self._voice = None

    def _speak(self, voice: Any, text: str, stop: Stop) -> bytes:
        with library_errors(self.name, "phonemes of the text", bad_input=True):
            sentences = [part for part in voice.phonemize(speakable(text)) if has_sound(part)]
        with library_errors(self.name, "synthesis"):
            return b"".join(
                to_pcm(voice.from_phonemes(part)) for part in sentences if not stop.is_set
            )
