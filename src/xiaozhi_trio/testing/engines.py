"""Engines that do what a test tells them, on Trio's clock and without threads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import numpy as np
import trio

from xiaozhi_trio.engines.protocols import LISTENING_RATE, PcmChunk, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall, ToolSpec

WINDOW_SAMPLES = 512


class _Loads:
    """Loading, scripted: how long it takes and whether it fails."""

    def __init__(self, name: str, load_seconds: float, load_error: Exception | None) -> None:
        self._name = name
        self._load_seconds = load_seconds
        self._load_error = load_error
        self.is_closed = False
        self.is_busy = False
        """Whether a call made now would have to wait; for a test to set."""

    @property
    def name(self) -> str:
        """The name it is configured by."""
        return self._name

    async def load(self) -> None:
        """Take the scripted time, then fail if so scripted."""
        await trio.sleep(self._load_seconds)
        if self._load_error is not None:
            raise self._load_error

    async def aclose(self) -> None:
        """Note that it was closed."""
        await trio.lowlevel.checkpoint()
        self.is_closed = True


class LoudnessStream:
    """Calls loud windows voice and quiet ones silence."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._rest = b""

    @property
    def window_samples(self) -> int:
        """As many as Silero takes."""
        return WINDOW_SAMPLES

    async def accept(self, pcm: bytes) -> Sequence[float]:
        """1.0 for a window whose mean level exceeds the threshold, else 0.0."""
        await trio.lowlevel.checkpoint()
        pcm = self._rest + pcm
        size = WINDOW_SAMPLES * 2
        whole = len(pcm) - len(pcm) % size
        self._rest = pcm[whole:]
        windows = np.frombuffer(pcm[:whole], np.int16).reshape(-1, WINDOW_SAMPLES)
        levels = np.abs(windows.astype(np.int32)).mean(axis=1)
        return [float(level > self._threshold) for level in levels]

    def reset(self) -> None:
        """Forget the unfinished window."""
        self._rest = b""


class LoudnessDetector(_Loads):
    """A voice activity detector for which loud is voice."""

    def __init__(
        self,
        *,
        threshold: int = 500,
        load_seconds: float = 0.0,
        load_error: Exception | None = None,
    ) -> None:
        super().__init__("loudness", load_seconds, load_error)
        self._threshold = threshold

    def open_stream(self) -> LoudnessStream:
        """A stream with nothing heard yet."""
        return LoudnessStream(self._threshold)


class ScriptedRecognizer(_Loads):
    """Gives the next text of its script for each utterance, the last one for ever."""

    def __init__(
        self,
        *texts: str | Exception,
        seconds: float = 0.0,
        load_seconds: float = 0.0,
        load_error: Exception | None = None,
    ) -> None:
        super().__init__("scripted-asr", load_seconds, load_error)
        self._texts = list(texts) or ["hello"]
        self._seconds = seconds
        self.utterances: list[bytes] = []
        """PCM of every utterance it was given."""

    async def transcribe(self, pcm: bytes) -> Transcript:
        """Take the scripted time and give the scripted text, or raise the scripted error."""
        self.utterances.append(pcm)
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        await trio.sleep(self._seconds)
        if isinstance(text, Exception):
            raise text
        return Transcript(text)

    @property
    def heard_ms(self) -> list[int]:
        """Length of every utterance it was given."""
        return [len(pcm) * 1000 // (LISTENING_RATE * 2) for pcm in self.utterances]


class ScriptedStreamingRecognizer(ScriptedRecognizer):
    """The same for utterances that it is given while they are spoken, one text a stream."""

    def __init__(
        self,
        *texts: str | Exception,
        pace: float = 0.0,
        ended_ms: float = float("inf"),
        fails: Callable[[float], Exception | None] = lambda _: None,
        seconds: float = 0.0,
    ) -> None:
        """`pace` is the time it takes for audio, in seconds a second.

        It takes an utterance for ended from `ended_ms` of audio on. `fails` gives the error
        to raise at so many ms of audio, or None. `seconds` is for one given as a whole.
        """
        super().__init__(*texts, seconds=seconds)
        self.pace = pace
        self.ended_ms = ended_ms
        self.fails = fails
        self.streams: list[ScriptedStream] = []
        """All that were ever opened."""
        self.streaming = 0
        """Streams in use."""

    @asynccontextmanager
    async def open_stream(self) -> AsyncIterator[ScriptedStream]:
        """A stream that will hear the next text of the script."""
        await trio.lowlevel.checkpoint()
        stream = ScriptedStream(self)
        self.streams.append(stream)
        self.streaming += 1
        try:
            yield stream
        finally:
            self.streaming -= 1

    def next_text(self) -> str:
        """The text of another utterance."""
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        if isinstance(text, Exception):
            raise text
        return text


class ScriptedStream:
    """One utterance at a `ScriptedStreamingRecognizer`."""

    def __init__(self, recognizer: ScriptedStreamingRecognizer) -> None:
        self._recognizer = recognizer
        self._text: str | None = None
        self.pcm = b""
        """What it was given, and is done with."""

    @property
    def _milliseconds(self) -> float:
        return len(self.pcm) * 1000 / (LISTENING_RATE * 2)

    @property
    def says_ended(self) -> bool:
        """As scripted."""
        return self._milliseconds >= self._recognizer.ended_ms

    async def accept(self, pcm: bytes) -> None:
        """Take the scripted time for the audio, or raise the scripted error."""
        await trio.sleep(self._recognizer.pace * len(pcm) / (LISTENING_RATE * 2))
        self.pcm += pcm
        if error := self._recognizer.fails(self._milliseconds):
            raise error

    async def transcript(self) -> Transcript:
        """The scripted text, the same each time."""
        await trio.lowlevel.checkpoint()
        if self._text is None:
            self._text = self._recognizer.next_text()
        return Transcript(self._text)


class ScriptedLanguageModel(_Loads):
    """Streams its script's next reply in pieces, the last one for ever.

    An exception in place of a piece is raised there; a `ToolCall` asks for a tool.
    """

    def __init__(
        self,
        *replies: Sequence[str | ToolCall | Exception],
        first_seconds: float = 0.0,
        piece_seconds: float = 0.0,
        load_seconds: float = 0.0,
        load_error: Exception | None = None,
    ) -> None:
        """`first_seconds` before the first piece, `piece_seconds` before each further one."""
        super().__init__("scripted-llm", load_seconds, load_error)
        self._replies = [list(reply) for reply in replies] or [["Fine, thank you."]]
        self._first_seconds = first_seconds
        self._piece_seconds = piece_seconds
        self.dialogues: list[list[ChatMessage]] = []
        """Every dialogue it was given."""
        self.offered: list[list[ToolSpec]] = []
        """The tools it was offered with each."""
        self.generating = 0
        """Replies in progress; back to 0 when all were finished or given up."""

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[AsyncIterator[str | ToolCall]]:
        """Stream the next reply of the script."""
        self.dialogues.append(list(messages))
        self.offered.append(list(tools))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        self.generating += 1
        pieces = self._pieces(reply)
        try:
            yield pieces
        finally:
            self.generating -= 1
            await pieces.aclose()

    async def _pieces(
        self, reply: Sequence[str | ToolCall | Exception]
    ) -> AsyncGenerator[str | ToolCall, None]:
        await trio.sleep(self._first_seconds)
        for number, piece in enumerate(reply):
            if number:
                await trio.sleep(self._piece_seconds)
            if isinstance(piece, Exception):
                raise piece
            yield piece


@attrs.frozen
class Tone:
    """Audio in place of speech: as long as the text, at a pitch of its own."""

    hertz: float = 440.0
    ms_per_character: int = 60
    level: int = 6000

    def pcm(self, text: str, sample_rate: int) -> bytes:
        """The tone for a text."""
        samples = sample_rate * self.ms_per_character * len(text) // 1000
        phase = np.arange(samples) * (2 * np.pi * self.hertz / sample_rate)
        pcm: bytes = (np.sin(phase) * self.level).astype(np.int16).tobytes()
        return pcm


class ScriptedSynthesizer(_Loads):
    """Speaks a tone whose length is the text's."""

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        chunk_ms: int = 0,
        sample_rate: int = 24_000,
        tone: Tone = Tone(),
        fails: Callable[[str], Exception | None] = lambda _: None,
        load_seconds: float = 0.0,
        load_error: Exception | None = None,
    ) -> None:
        """`seconds` before the first chunk; `chunk_ms` of audio a chunk, 0 for all at once.

        `fails` gives the error to raise for a sentence, or None.
        """
        super().__init__("scripted-tts", load_seconds, load_error)
        self._seconds = seconds
        self._chunk_ms = chunk_ms
        self._sample_rate = sample_rate
        self._tone = tone
        self._fails = fails
        self.sentences: list[str] = []
        """Every sentence it was given."""
        self.speaking = 0
        """Sentences in progress."""

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        """Speak the sentence as a tone."""
        self.sentences.append(sentence)
        self.speaking += 1
        chunks = self._chunks(sentence)
        try:
            yield chunks
        finally:
            self.speaking -= 1
            await chunks.aclose()

    async def _chunks(self, sentence: str) -> AsyncGenerator[PcmChunk, None]:
        await trio.sleep(self._seconds)
        error = self._fails(sentence)
        if error is not None:
            raise error
        pcm = self._tone.pcm(sentence, self._sample_rate)
        size = self._sample_rate * self._chunk_ms // 1000 * 2 or max(len(pcm), 1)
        for start in range(0, len(pcm), size):
            yield PcmChunk(pcm[start : start + size], self._sample_rate)
