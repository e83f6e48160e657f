"""Engines that take their time, fail, stay silent or cannot be stopped, as they are told."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from transcript import Dialogue, Recognition, Saying, Sound, Trouble, Understanding

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)
from xiaozhi_trio.testing.engines import LoudnessStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from transcript import Entry

HANGS = 1e6
STUBBORN_SECONDS = 1.0
"""A hang that cannot be cancelled either is no engine that anybody promised to bear."""


@attrs.define
class Mood:
    """How an engine does its work until it is told otherwise."""

    seconds: float = 0.0
    """Before each piece."""
    ending: str = "well"
    """`well`, `empty`, `fails` or `stubborn`: finishes what it has begun, cancelled or not."""
    sentences: int = 2
    """Of a reply."""


@attrs.define
class Moods:
    """Those of all engines of a server."""

    vad: Mood = attrs.field(factory=Mood)
    asr: Mood = attrs.field(factory=Mood)
    llm: Mood = attrs.field(factory=Mood)
    tts: Mood = attrs.field(factory=Mood)
    unstoppable: int = 0
    """Pieces of work in progress that go on when they are cancelled."""

    async def work(self, mood: Mood) -> None:
        """Take the time of a mood."""
        if mood.ending != "stubborn":
            await trio.sleep(mood.seconds)
            return
        self.unstoppable += 1
        with trio.CancelScope(shield=True):
            await trio.sleep(min(mood.seconds, STUBBORN_SECONDS))
        self.unstoppable -= 1
        await trio.lowlevel.checkpoint_if_cancelled()


def broken() -> EngineError:
    return EngineError("out of order", engine="moody", category=EngineErrorCategory.INTERNAL)


class MoodyDetector(LoudnessDetector):
    def __init__(self, moods: Moods) -> None:
        super().__init__()
        self._moods = moods

    def open_stream(self) -> LoudnessStream:
        return _MoodyStream(self._moods)


class _MoodyStream(LoudnessStream):
    def __init__(self, moods: Moods) -> None:
        super().__init__(500)
        self._moods = moods

    async def accept(self, pcm: bytes):
        if self._moods.vad.ending == "fails":
            await trio.lowlevel.checkpoint()
            raise broken()
        return await super().accept(pcm)


class MoodyRecognizer(ScriptedRecognizer):
    def __init__(self, moods: Moods, numbers: Iterator[int], note: Callable[[Entry], None]) -> None:
        super().__init__()
        self._moods = moods
        self._numbers = numbers
        self._note = note
        self.recognising = 0
        """Utterances in work, those that nobody waits for any more included."""

    async def transcribe(self, pcm: bytes) -> Transcript:
        mood = attrs.evolve(self._moods.asr)
        self._note(Recognition(trio.current_time(), pcm))
        if mood.seconds == HANGS and mood.ending != "stubborn":
            self._note(Trouble(trio.current_time(), "asr"))
        self.recognising += 1
        try:
            await self._moods.work(mood)
        finally:
            self.recognising -= 1
        if mood.ending == "fails":
            self._note(Trouble(trio.current_time(), "asr"))
            raise broken()
        text = "" if mood.ending == "empty" else f"Question {next(self._numbers)}"
        if trio.current_effective_deadline() > trio.current_time():
            self._note(Understanding(trio.current_time(), text))
        return Transcript(text)


class MoodyLanguageModel(ScriptedLanguageModel):
    def __init__(self, moods: Moods, note: Callable[[Entry], None]) -> None:
        super().__init__()
        self._moods = moods
        self._note = note

    @asynccontextmanager
    async def reply(self, messages, tools=()) -> AsyncIterator[AsyncIterator[str]]:
        self.dialogues.append(list(messages))
        self._note(Dialogue(trio.current_time(), tuple(messages)))
        self.generating += 1
        pieces = self._reply(len(self.dialogues), attrs.evolve(self._moods.llm))
        try:
            yield pieces
        finally:
            self.generating -= 1
            await pieces.aclose()

    async def _reply(self, number: int, mood: Mood) -> AsyncIterator[str]:
        if mood.seconds == HANGS and mood.ending != "stubborn":
            self._note(Trouble(trio.current_time(), "llm"))
        await self._moods.work(mood)
        for part in range(0 if mood.ending == "empty" else mood.sentences):
            yield f"😂 Reply {number} part {part}\u0007 **goes** on. "
            await self._moods.work(mood)
        if mood.ending == "fails":
            self._note(Trouble(trio.current_time(), "llm"))
            raise broken()


class MoodySynthesizer(ScriptedSynthesizer):
    def __init__(self, moods: Moods, note: Callable[[Entry], None]) -> None:
        super().__init__(chunk_ms=200)
        self._moods = moods
        self._note = note

    async def _chunks(self, sentence: str):
        mood = attrs.evolve(self._moods.tts)
        self._note(Saying(trio.current_time(), sentence))
        await self._moods.work(mood)
        if mood.ending == "empty":
            return
        async with aclosing(super()._chunks(sentence)) as chunks:
            async for chunk in chunks:
                ms = len(chunk.pcm) / 2 * 1000 / chunk.sample_rate
                self._note(Sound(trio.current_time(), ms))
                yield chunk
                if mood.ending == "fails":
                    raise broken()
