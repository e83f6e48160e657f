"""Whisper speech recognition on the CPU, through CTranslate2.

Whisper was trained on windows of 30 s, and its encoder costs the same for a
word as for all of them. Given only as much of the window as was spoken in, a
short utterance is recognised three to five times faster, but now and then the
decoder repeats itself; then the utterance is decoded again in the full window.
Figures in docs/engines.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import library_errors, optional_packages
from xiaozhi_trio.engines.protocols import LISTENING_RATE, Transcript
from xiaozhi_trio.engines.worker import ModelWorkers

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from xiaozhi_trio.config.engines import WhisperSettings
    from xiaozhi_trio.engines.admission import WorkerStatistics
    from xiaozhi_trio.engines.model_folder import ModelFolder
    from xiaozhi_trio.engines.worker import Stop

FULL_WINDOW = 30.0
"""Seconds the encoder was trained on; it takes no more at once."""
SHORTEST_WINDOW = 4.0
"""Seconds; below that the decoder loops more often than the time saved is worth."""
TAIL = 1.0
"""Seconds of silence after the speech, so that the decoder finds its end."""

FASTEST_SPEECH = 14.0
"""Tokens per second that no speaker reaches; more text than that is a loop."""
TOKENS_OF_A_WORD = 16
"""Room for the tokens of the shortest utterance, whatever its length."""

SILENCE = 10 ** (-60 / 20)
"""Peak, full scale 1, below which nothing can have been said."""
LEAST_LIKELY = -1.4
"""Mean log probability of the tokens below which text is made up.

Here noise and hum gave -1.5 to -3.7, speech -0.8 and better, one-word replies included.
"""
LEAST_LIKELY_IN_SILENCE = -0.9
"""The same where the model itself thinks rather that nobody spoke."""
NO_SPEECH = 0.5
"""Probability of the model's no-speech token above which the stricter bound holds."""

_FULL_SCALE = np.float32(32_768)
_QUIET = np.float32(0.01)

# Between two copies the punctuation may differ, so letters and digits are compared alone.
_NOT_A_LETTER = re.compile(r"[\W_]+")
_NOTHING_ELSE = re.compile(r"(.{1,80}?)(?:\s*\1)+")
_LOOP = re.compile(r"(.{6,80}?)\1|(.{2,5})\2{2}|([^\d])\3{3}")


@attrs.frozen
class _Decoded:
    """One window of speech as text."""

    text: str
    language: str
    log_probability: float
    """Mean over the tokens."""
    no_speech: float
    """Probability that nobody spoke."""
    is_cut: bool
    """The decoder was stopped at the longest text that can have been said."""

    @property
    def is_doubtful(self) -> bool:
        """The decoder looks as if it had fallen into a loop."""
        return self.is_cut or is_repetitive(self.text)

    @property
    def is_made_up(self) -> bool:
        """The text says more about the model's training than about the audio."""
        bound = LEAST_LIKELY_IN_SILENCE if self.no_speech > NO_SPEECH else LEAST_LIKELY
        return self.is_cut or self.log_probability < bound

    @property
    def said_once(self) -> _Decoded | None:
        """What the decoder, fallen into a loop, says again and again; None for other text.

        A single "Yes." may end so, at no lower probability than other speech.
        """
        text = loop_body(self.text)
        return attrs.evolve(self, text=text, is_cut=False) if text else None


@attrs.frozen
class _Model:
    """The loaded libraries."""

    whisper: Any
    """`faster_whisper.WhisperModel`: features, encoder, tokenizer."""
    make_tokenizer: Callable[..., Any]
    to_simplified: Callable[[str], str]


class WhisperRecognizer:
    """A `SpeechRecognizer` with one thread per worker."""

    def __init__(
        self, settings: WhisperSettings, models: ModelFolder, *, name: str = "whisper"
    ) -> None:
        self.name = name
        self._settings = settings
        self._models = models
        self._model: _Model | None = None
        self._workers = ModelWorkers(self.name, workers=settings.workers, queue=settings.queue)

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._workers.is_busy

    def statistics(self) -> WorkerStatistics:
        """How busy the model is."""
        return self._workers.statistics()

    async def load(self) -> None:
        """Load the model and recognise a second of noise in each language.

        Raises `EngineError`, also for a language that the model does not know.
        """
        folder = await self._models.ensure(self._settings.model)
        self._model = await self._workers.run(
            lambda stop: self._load_and_warm_up(folder, stop), abandon=True
        )

    async def transcribe(self, pcm: bytes) -> Transcript:
        """Recognise one utterance. Raises `EngineError`."""
        model = self._model
        if model is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )

        def recognise(stop: Stop) -> Transcript:
            whole = len(pcm) - len(pcm) % 2
            samples = np.frombuffer(pcm[:whole], dtype="<i2").astype(np.float32) / _FULL_SCALE
            return self._recognise(model, samples, stop)

        # Nothing interrupts CTranslate2 inside a call; a cancelled caller need not
        # wait, and the thread ends after the step it is at, a quarter second about.
        return await self._workers.run(recognise, abandon=True)

    async def aclose(self) -> None:
        """Wait for the threads and let go of the model."""
        await self._workers.aclose()
        self._model = None

    def _load_and_warm_up(self, folder: Path, stop: Stop) -> _Model:
        with optional_packages(self.name):
            from faster_whisper import WhisperModel
            from faster_whisper.tokenizer import Tokenizer
            from opencc import OpenCC

        with library_errors(self.name, f"loading {folder}"):
            whisper = WhisperModel(
                str(folder),
                device="cpu",
                compute_type="int8",
                cpu_threads=1,
                num_workers=self._settings.workers,
                local_files_only=True,
            )
        unknown = set(self._settings.languages) - set(whisper.supported_languages)
        if unknown:
            raise EngineError(
                f"setting `languages` names {', '.join(sorted(unknown))}; "
                f"{self._settings.model} knows {', '.join(sorted(whisper.supported_languages))}",
                engine=self.name,
                category=EngineErrorCategory.BAD_REQUEST,
            )
        model = _Model(whisper, Tokenizer, OpenCC("t2s").convert)
        with library_errors(self.name, "warming up"):
            noise = np.random.default_rng(0).standard_normal(LISTENING_RATE, np.float32)
            for language in self._settings.languages or ("en",):
                if stop.is_set:
                    break
                self._decode(model, noise * _QUIET, SHORTEST_WINDOW, (language,))
        return model

    def _recognise(self, model: _Model, samples: npt.NDArray[np.float32], stop: Stop) -> Transcript:
        longest = int((FULL_WINDOW - TAIL) * LISTENING_RATE)
        texts: list[str] = []
        language: str | None = None
        with library_errors(self.name, "recognition"):
            for start in range(0, len(samples), longest):
                if stop.is_set:
                    break
                decoded = self._recognise_window(model, samples[start : start + longest], stop)
                if decoded is not None and decoded.text:
                    texts.append(decoded.text)
                    language = language or decoded.language
        text = ("" if language in {"zh", "ja", "yue"} else " ").join(texts)
        return Transcript(text=text, language=language)

    def _recognise_window(
        self, model: _Model, samples: npt.NDArray[np.float32], stop: Stop
    ) -> _Decoded | None:
        if np.abs(samples).max() < SILENCE:
            return None
        window = max(SHORTEST_WINDOW, len(samples) / LISTENING_RATE + TAIL)
        decoded = self._decode(model, samples, window, self._settings.languages)
        # Of one short word either may come: a loop, or the word with no confidence in it.
        doubts = decoded.is_doubtful or decoded.is_made_up
        if doubts and window < FULL_WINDOW and not stop.is_set:
            again = self._decode(model, samples, FULL_WINDOW, (decoded.language,))
            decoded = (
                again if not again.is_made_up else again.said_once or decoded.said_once or again
            )
        return None if decoded.is_made_up else decoded

    def _decode(
        self,
        model: _Model,
        samples: npt.NDArray[np.float32],
        window: float,
        languages: tuple[str, ...],
    ) -> _Decoded:
        whisper = model.whisper
        padding = max(0, int(window * LISTENING_RATE) - len(samples))
        features = whisper.feature_extractor(samples, padding=padding)
        encoded = whisper.encode(features)
        language = self._language(whisper, encoded, languages)
        multilingual = whisper.model.is_multilingual
        tokenizer = model.make_tokenizer(
            whisper.hf_tokenizer, multilingual, task="transcribe", language=language
        )
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        room = TOKENS_OF_A_WORD + int(FASTEST_SPEECH * len(samples) / LISTENING_RATE)
        longest = min(whisper.max_length, len(prompt) + room)
        result = whisper.model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=longest,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        text = tokenizer.decode(tokens).strip()
        return _Decoded(
            text=model.to_simplified(text) if language == "zh" else text,
            language=language,
            log_probability=result.scores[0],
            no_speech=result.no_speech_prob,
            is_cut=len(prompt) + len(tokens) >= longest,
        )

    def _language(self, whisper: Any, encoded: Any, languages: tuple[str, ...]) -> str:
        if not whisper.model.is_multilingual:
            return "en"
        if len(languages) == 1:
            return languages[0]
        ranked = whisper.model.detect_language(encoded)[0]
        codes: list[str] = [token.strip("<|>") for token, _ in ranked]
        return next(code for code in codes if not languages or code in languages)


def is_repetitive(text: str) -> bool:
    """True where `text` says the same several times running, as a decoder in a loop does."""
    letters = _NOT_A_LETTER.sub("", text).casefold()
    return _LOOP.search(letters) is not None


def loop_body(text: str) -> str:
    """What `text` says several times, where it says nothing else; "" where it does."""
    loop = _NOTHING_ELSE.match(text)
    if loop is None or not is_repetitive(text):
        return ""
    body = loop[1]
    return body.strip() if body.startswith(text[loop.end() :].strip()) else ""
