"""Kokoro speech synthesis on the CPU: Mandarin, English, and both in one sentence.

The model speaks a clause at a time, at a bit less than half its duration on two
cores, so a sentence is cut into clauses and each is spoken while the one before
it is heard.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
import numpy as np
import numpy.typing as npt
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.language import has_chinese, split_clauses
from xiaozhi_trio.engines.libraries import library_errors, only_file, threads_or_cores
from xiaozhi_trio.engines.onnx import OnnxModel, open_onnx
from xiaozhi_trio.engines.protocols import PcmChunk
from xiaozhi_trio.engines.tts.english_phonemes import EnglishPhonemes
from xiaozhi_trio.engines.tts.kokoro_alphabet import numbers_of
from xiaozhi_trio.engines.tts.mandarin_phonemes import MandarinPhonemes
from xiaozhi_trio.engines.tts.waveform import has_sound, speak_ahead, to_pcm
from xiaozhi_trio.engines.worker import ModelWorkers, Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from xiaozhi_trio.config.engines import KokoroSettings
    from xiaozhi_trio.engines.admission import WorkerStatistics
    from xiaozhi_trio.engines.model_folder import ModelFolder

MODEL = "kokoro"
FURTHER_VOICES = "kokoro-voices-extra"

SAMPLE_RATE = 24_000
"""Hz."""
MOST_PHONEMES = 510
"""Phonemes the model takes at once; a voice has one style for each length up to this."""
STYLE_SIZE = 256

_WARM_UP = ("你好。", "Hello.")
_VOICE_NAME = re.compile(r"[a-z]{2}_[a-z]+")


@attrs.frozen
class _Loaded:
    """Everything a clause needs."""

    model: OnnxModel
    mandarin: MandarinPhonemes
    english: EnglishPhonemes
    voice_zh: npt.NDArray[np.float32]
    """Shape (MOST_PHONEMES, 1, STYLE_SIZE)."""
    voice_en: npt.NDArray[np.float32]
    speed: npt.NDArray[np.float32]


class KokoroSynthesizer:
    """A `SpeechSynthesizer`; one clause at a time, those of several sentences in turn."""

    def __init__(
        self, settings: KokoroSettings, models: ModelFolder, *, name: str = "kokoro"
    ) -> None:
        self.name = name
        self._settings = settings
        self._models = models
        self._loaded: _Loaded | None = None
        self._workers = ModelWorkers(self.name, workers=1, queue=settings.queue)

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._workers.is_busy

    def statistics(self) -> WorkerStatistics:
        """How busy the model is."""
        return self._workers.statistics()

    async def load(self) -> None:
        """Load model, voices and dictionaries and say a word in each language.

        Raises `EngineError`, also for a voice that is not there.
        """
        folder = await self._models.ensure(MODEL)
        voice_zh = await self._voice_file(folder, self._settings.voice_zh)
        voice_en = await self._voice_file(folder, self._settings.voice_en)

        def load_and_warm_up(stop: Stop) -> _Loaded:
            english = EnglishPhonemes(self.name)
            path = only_file(folder, "*.onnx", self.name)
            loaded = _Loaded(
                model=open_onnx(self.name, path, threads=threads_or_cores(self._settings.threads)),
                mandarin=MandarinPhonemes(self.name, english),
                english=english,
                voice_zh=self._read_voice(voice_zh),
                voice_en=self._read_voice(voice_en),
                speed=np.array([self._settings.speed], np.float32),
            )
            for clause in _WARM_UP:
                _speak(loaded, clause, stop, chinese=has_chinese(clause))
            return loaded

        self._loaded = await self._workers.run(load_and_warm_up, abandon=True)

    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        """Speak one sentence, a chunk per clause. Raises `EngineError`.

        The whole sentence has one voice: the Mandarin one where it holds any Chinese
        character, else the English one.
        """
        loaded = self._loaded
        if loaded is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )
        chinese = has_chinese(sentence)

        async def speak(clause: str) -> PcmChunk | None:
            pcm = await self._workers.run(
                lambda stop: _speak(loaded, clause, stop, chinese=chinese)
            )
            return PcmChunk(pcm, SAMPLE_RATE) if pcm else None

        return speak_ahead(split_clauses(sentence), speak)

    async def aclose(self) -> None:
        """End the clause under way and unload the model."""
        await self._workers.aclose()
        self._loaded = None

    async def _voice_file(self, folder: Path, voice: str) -> Path:
        # Checked before it becomes part of a path.
        if not _VOICE_NAME.fullmatch(voice):
            raise self._no_voice(voice, [folder])
        path = folder / f"{voice}.bin"
        if await _exists(path):
            return path
        further = await self._models.ensure(FURTHER_VOICES)
        path = further / f"{voice}.bin"
        if await _exists(path):
            return path
        raise self._no_voice(voice, [folder, further])

    def _no_voice(self, voice: str, folders: list[Path]) -> EngineError:
        known = sorted(path.stem for folder in folders for path in folder.glob("*.bin"))
        return EngineError(
            f"there is no voice {voice!r}; settings `voice_zh` and `voice_en` may be "
            f"{', '.join(known)}",
            engine=self.name,
            category=EngineErrorCategory.BAD_REQUEST,
        )

    def _read_voice(self, path: Path) -> npt.NDArray[np.float32]:
        with library_errors(self.name, f"reading {path}"):
            styles = np.fromfile(path, dtype="<f4")
            return styles.reshape(MOST_PHONEMES, 1, STYLE_SIZE)


def _speak(loaded: _Loaded, clause: str, stop: Stop, *, chinese: bool) -> bytes:
    """The PCM of one clause, empty where there is nothing to say or nobody listens; blocks."""
    phonemes = loaded.mandarin(clause) if chinese else loaded.english(clause)
    if not has_sound(phonemes):
        return b""
    voice = loaded.voice_zh if chinese else loaded.voice_en
    numbers = numbers_of(phonemes)
    pcm: list[bytes] = []
    for start in range(0, len(numbers), MOST_PHONEMES):
        part = numbers[start : start + MOST_PHONEMES]
        outputs = loaded.model.run(
            {
                # A zero marks the beginning and the end.
                "tokens": np.array([[0, *part, 0]], np.int64),
                "style": voice[len(part) - 1],
                "speed": loaded.speed,
            },
            stop,
        )
        if outputs is None:
            return b""
        pcm.append(to_pcm(outputs[0]))
    return b"".join(pcm)


async def _exists(path: Path) -> bool:
    return await trio.Path(path).exists()
