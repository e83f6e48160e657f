"""Engines that are used by all devices at once and treat each as its plot says: well or badly.

The pitch of a voice tells the detector and the recogniser which plot it is of; the
words tell the others. So one device's hang, crash or garbage happens in the very
engine that answers another's question at that moment.
"""

from __future__ import annotations

import enum
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
import trio

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.bench.client_frames import frame
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import LISTENING_RATE, PcmChunk, Transcript
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)
from xiaozhi_trio.testing.engines import LoudnessStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from xiaozhi_trio.engines.protocols import ChatMessage, ToolSpec

FRAME_MS: Final = 60
SAID_PACKETS: Final = 9
"""Of a question, the first of them a breath: a voice without any is the noise of a room."""
_SILENT_PACKETS: Final = 7
_LOWEST_HERTZ: Final = 1000
_STEP_HERTZ: Final = 80
_SPEECH_RATE: Final = 24_000
RECOGNITION_SECONDS: Final = 0.2
FIRST_TOKEN_SECONDS: Final = 0.3
SYNTHESIS_SECONDS: Final = 0.1


class Plot(enum.Enum):
    """What is to happen to a question; the value is its text."""

    WELL = "all goes well"
    VAD_FAILS = "vad fails"
    VAD_HANGS = "vad hangs"
    ASR_FAILS = "asr fails"
    ASR_FAILS_FOR_NOW = "asr stumbles"
    ASR_HANGS = "asr hangs"
    ASR_CRASHES = "asr crashes"
    ASR_HEARS_NOTHING = "asr hears nothing"
    ASR_RAVES = "asr raves"
    ASR_STAMMERS = "asr stammers"
    LLM_FAILS = "llm fails"
    LLM_BREAKS_OFF = "llm breaks off"
    LLM_HANGS = "llm hangs"
    LLM_FALLS_SILENT = "llm falls silent"
    LLM_CRASHES = "llm crashes"
    LLM_SAYS_NOTHING = "llm says nothing"
    LLM_RAVES = "llm raves"
    LLM_BABBLES = "llm babbles"
    TTS_FAILS = "tts fails"
    TTS_BREAKS_OFF = "tts breaks off"
    TTS_HANGS = "tts hangs"
    TTS_FALLS_SILENT = "tts falls silent"
    TTS_CRASHES = "tts crashes"
    TTS_GIVES_NOTHING = "tts gives nothing"
    TTS_GIVES_HALF_SAMPLES = "tts gives half samples"
    TTS_GIVES_ANOTHER_RATE = "tts gives another rate"
    TTS_GIVES_NO_RATE = "tts gives no rate"
    TTS_RAVES = "tts raves"


PLOTS: Final = tuple(Plot)
CRASHES: Final = frozenset({Plot.ASR_CRASHES, Plot.LLM_CRASHES, Plot.TTS_CRASHES})
"""A bug in an engine: the device's connection ends with 1011, and nobody else's."""
UNHEARD: Final = frozenset({Plot.VAD_FAILS, Plot.VAD_HANGS, Plot.ASR_HEARS_NOTHING})
"""Nothing was understood, so that nothing is answered."""


def pitch_of(plot: Plot) -> float:
    """Hz of the voice that asks for it."""
    return _LOWEST_HERTZ + _STEP_HERTZ * PLOTS.index(plot)


def plot_of(pcm: bytes) -> Plot:
    """The plot that a voice is of; all is well for any other voice."""
    samples = np.frombuffer(pcm, np.int16)
    loudest = int(np.argmax(np.abs(np.fft.rfft(samples))[1:])) + 1
    place = round((loudest * LISTENING_RATE / len(samples) - _LOWEST_HERTZ) / _STEP_HERTZ)
    return PLOTS[place] if 0 <= place < len(PLOTS) else Plot.WELL


@cache
def question(plot: Plot) -> tuple[bytes, ...]:
    """What a device sends that asks for it: WebSocket frames of voice, then of silence."""
    encoder = OpusEncoder(LISTENING_RATE, frame_ms=FRAME_MS, complexity=0)
    tone = Tone(hertz=pitch_of(plot), level=9000, ms_per_character=FRAME_MS)
    pcm = bytes(encoder.frame_bytes) + tone.pcm("v" * (SAID_PACKETS - 1), LISTENING_RATE)
    pcm += bytes(_SILENT_PACKETS * encoder.frame_bytes)
    starts = range(0, len(pcm), encoder.frame_bytes)
    return tuple(
        frame(encoder.encode(pcm[start : start + encoder.frame_bytes])) for start in starts
    )


def _broken(engine: str, *, retryable: bool = False) -> EngineError:
    return EngineError(
        "out of order", engine=engine, category=EngineErrorCategory.INTERNAL, retryable=retryable
    )


class _Counted:
    """Counts its calls in progress, and its crashes."""

    busy = 0
    crashes = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def crash(self) -> NoReturn:
        self.crashes += 1
        raise ZeroDivisionError("a bug in an engine")


class _Ear(LoudnessStream):
    async def accept(self, pcm: bytes) -> Sequence[float]:
        voices = await super().accept(pcm)
        if any(voices):
            plot = plot_of(pcm)
            if plot is Plot.VAD_FAILS:
                raise _broken("vad")
            if plot is Plot.VAD_HANGS:
                await trio.sleep_forever()
        return voices


class Detector(LoudnessDetector):
    def open_stream(self) -> LoudnessStream:
        return _Ear(500)


class Recognizer(_Counted, ScriptedRecognizer):
    async def transcribe(self, pcm: bytes) -> Transcript:
        with self.call():
            await trio.sleep(RECOGNITION_SECONDS)
            return Transcript(await self._text(plot_of(pcm)))

    async def _text(self, plot: Plot) -> str:
        match plot:
            case Plot.ASR_FAILS | Plot.ASR_FAILS_FOR_NOW:
                raise _broken("asr", retryable=plot is Plot.ASR_FAILS_FOR_NOW)
            case Plot.ASR_HANGS:
                await trio.sleep_forever()
            case Plot.ASR_CRASHES:
                self.crash()
            case Plot.ASR_HEARS_NOTHING:
                return " \n"
            case Plot.ASR_RAVES:
                return "no end to it " * 20_000
            case Plot.ASR_STAMMERS:
                return "\x00\ud83d\x1b[2J \u202e all goes well"
        return plot.value


def _plot_in(text: str) -> Plot:
    return next((plot for plot in PLOTS if plot.value in text), Plot.WELL)


class Thinker(_Counted, ScriptedLanguageModel):
    @asynccontextmanager
    async def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[AsyncIterator[str]]:
        # What was asked before stands above it, where its answer was not heard.
        pieces = self._reply(_plot_in(messages[-1].content.rsplit("\n", 1)[-1]))
        with self.call():
            try:
                yield pieces
            finally:
                await pieces.aclose()

    async def _reply(self, plot: Plot) -> AsyncGenerator[str, None]:
        await trio.sleep(FIRST_TOKEN_SECONDS)
        match plot:
            case Plot.LLM_FAILS:
                raise _broken("llm", retryable=True)
            case Plot.LLM_HANGS:
                await trio.sleep_forever()
            case Plot.LLM_SAYS_NOTHING:
                yield ""
                return
            case Plot.LLM_BABBLES:
                yield "bla" * 300_000
                return
            case Plot.LLM_RAVES:
                while True:
                    yield "I say it once more. "
                    await trio.lowlevel.checkpoint()
        yield f"You said {plot.value}. "
        match plot:
            case Plot.LLM_BREAKS_OFF:
                raise _broken("llm")
            case Plot.LLM_FALLS_SILENT:
                await trio.sleep_forever()
            case Plot.LLM_CRASHES:
                self.crash()
        yield "And so say I."


class Speaker(_Counted, ScriptedSynthesizer):
    def __init__(self) -> None:
        super().__init__(tone=Tone(ms_per_character=30))

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        chunks = self._speech(sentence, _plot_in(sentence))
        with self.call():
            try:
                yield chunks
            finally:
                await chunks.aclose()

    async def _speech(self, sentence: str, plot: Plot) -> AsyncGenerator[PcmChunk, None]:
        await trio.sleep(SYNTHESIS_SECONDS)
        match plot:
            case Plot.TTS_FAILS:
                raise _broken("tts")
            case Plot.TTS_HANGS:
                await trio.sleep_forever()
            case Plot.TTS_GIVES_NOTHING:
                return
        pcm = self._tone.pcm(sentence, _SPEECH_RATE)
        match plot:
            case Plot.TTS_GIVES_HALF_SAMPLES:
                yield PcmChunk(pcm[:1001], 16_000)
                yield PcmChunk(pcm[:333], 16_000)
                return
            case Plot.TTS_GIVES_ANOTHER_RATE:
                yield PcmChunk(pcm, 11_025)
                yield PcmChunk(pcm, 48_000)
                return
            case Plot.TTS_GIVES_NO_RATE:
                yield PcmChunk(pcm, 0)
                return
            case Plot.TTS_RAVES:
                yield PcmChunk(bytes(2 * _SPEECH_RATE * 20), _SPEECH_RATE)
                return
        yield PcmChunk(pcm, _SPEECH_RATE)
        match plot:
            case Plot.TTS_BREAKS_OFF:
                raise _broken("tts")
            case Plot.TTS_FALLS_SILENT:
                await trio.sleep_forever()
            case Plot.TTS_CRASHES:
                self.crash()


class Troupe:
    """The engines of a server, and what has become of the calls of them."""

    def __init__(self) -> None:
        self._asr, self._llm, self._tts = Recognizer(), Thinker(), Speaker()
        self.engines = EngineSet(
            vad=EngineSlot.of_ready(Detector()),
            asr=EngineSlot.of_ready(self._asr),
            llm=EngineSlot.of_ready(self._llm),
            tts=EngineSlot.of_ready(self._tts),
        )

    @property
    def busy(self) -> int:
        """Calls in progress."""
        return self._asr.busy + self._llm.busy + self._tts.busy

    @property
    def crashes(self) -> int:
        """Calls that ended in a bug."""
        return self._asr.crashes + self._llm.crashes + self._tts.crashes
