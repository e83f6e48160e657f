"""One turn: what the user said, and the reply, in one cancel scope.

The stages run side by side, joined by bounded channels: the language model writes
the next sentence while one is synthesised and an earlier one plays. Interrupting a
turn is one call: from then on nothing of it reaches the device, and the history
holds what was heard.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio
from loguru import logger

from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.slots import EngineSet
from xiaozhi_trio.session.encoding import EncodingRunner
from xiaozhi_trio.session.history import History
from xiaozhi_trio.session.listening import Utterance
from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.session.phrases import ENGINE_FAILED, SERVICE_FAILED
from xiaozhi_trio.session.playout import Playout, SpeechItem
from xiaozhi_trio.session.speaking import Speaking
from xiaozhi_trio.session.stage import stage_deadline
from xiaozhi_trio.session.thinking import think
from xiaozhi_trio.session.voicing import SLICES_AHEAD, Speech, Voice
from xiaozhi_trio.wire.emotion import Emotion, first_emotion
from xiaozhi_trio.wire.messages import Alert, AudioParams, LlmEmotion, Stt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


_SENTENCES_AHEAD: Final = 2
_PACKETS_AHEAD_MS: Final = 300
"""Speech encoded but not yet sent; beyond it the encoder waits for the playout."""


@attrs.frozen
class Spoken:
    """The user said something."""

    utterance: Utterance


@attrs.frozen
class Typed:
    """The user typed something, or a device sent text in place of speech."""

    text: str


@attrs.frozen
class WakeWord:
    """The device was called; the answer is a fixed greeting."""

    text: str
    greeting: str


Occasion: TypeAlias = Spoken | Typed | WakeWord
"""What a turn answers."""


@attrs.frozen(kw_only=True)
class TurnTools:
    """What turns of one session share."""

    settings: Settings
    engines: EngineSet
    run_encoding: EncodingRunner
    outbox: Outbox
    history: History
    speech: AudioParams
    """What the device plays."""
    shows_emotion: bool


class Turn:
    """One occasion and its answer. Run it once."""

    def __init__(self, number: int, occasion: Occasion, tools: TurnTools) -> None:
        """`number` rises from turn to turn of a session; frames are stamped with it."""
        self.number = number
        self._occasion = occasion
        self._tools = tools
        self._scope = trio.CancelScope()
        self._speaking = Speaking(tools.outbox, number)
        self._playout: Playout | None = None
        self._failures: dict[str, EngineError] = {}
        self._concluded = False
        self._began_at = trio.current_time()
        self._times: dict[str, int] = {}

    @property
    def is_speaking(self) -> bool:
        """The device has been told `tts start` and not yet `tts stop`."""
        return self._speaking.is_open

    @property
    def has_spoken(self) -> bool:
        """The device has been told `tts start` at some time."""
        return self._speaking.was_opened

    def interrupt(self) -> None:
        """Silence the turn now. Returns at once; its tasks unwind on their own."""
        self._conclude("interrupted", dropped=self._tools.outbox.withdraw(self.number))
        self._scope.cancel()

    async def run(self) -> None:
        """Live through the turn; whatever happens, `tts stop` follows `tts start`."""
        with self._scope:
            try:
                await self._answer()
                self._conclude("failed" if self._failures else "finished")
            finally:
                self._conclude("cancelled")

    def _conclude(self, outcome: str, *, dropped: int = 0) -> None:
        if self._concluded:
            return
        self._concluded = True
        heard = self._playout.heard(dropped=dropped) if self._playout else ""
        self._tools.history.assistant_said(heard)
        self._speaking.close()
        if self._playout and self._playout.first_packet_at is not None:
            self._mark("first_audio_ms", at=self._playout.first_packet_at)
        # Who interrupts a turn does so outside of its logging context.
        logger.bind(turn=self.number, outcome=outcome, **self._times).info("turn over")

    def _mark(self, step: str, *, at: float | None = None) -> None:
        at = trio.current_time() if at is None else at
        self._times.setdefault(step, int((at - self._began_at) * 1000))

    async def _answer(self) -> None:
        # More than the dialogue holds is of no use to anybody, and a burden to the device.
        bound = self._tools.settings.conversation.history_characters
        text = (await self._understood())[:bound]
        if text:
            # What people say at home is for those who ask to see it.
            logger.bind(text=text).debug("understood")
            self._tools.outbox.post(Stt(text), turn=self.number)
        elif not self._failures:
            return
        self._speaking.open()
        self._playout = Playout(
            self._tools.outbox,
            self.number,
            packet_ms=self._tools.speech.frame_duration,
            settings=self._tools.settings.playout,
        )
        if text:
            await self._say(self._playout, self._words_for(text))
        if self._failures:
            await self._apologise(self._playout, text)
        await self._playout.drained()

    async def _understood(self) -> str:
        """What the user said, "" where it is nothing or could not be recognised."""
        match self._occasion:
            case Spoken(utterance):
                try:
                    return await self._transcribed(utterance)
                except EngineError as error:
                    self._note("asr", error)
                    return ""
            case Typed(text) | WakeWord(text):
                return text.strip()

    async def _transcribed(self, utterance: Utterance) -> str:
        with stage_deadline("asr", self._tools.settings.conversation.recognition_seconds):
            recognizer = await self._tools.engines.asr.ready()
            transcript = await recognizer.transcribe(utterance.pcm)
        # A model in a thread finishes what it began. A turn that was interrupted
        # meanwhile must not add to the history, where the next one has its place now.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._mark("transcript_ms")
        # A remote recogniser may send half of a surrogate pair, which no message can carry.
        return transcript.text.encode("utf-8", "ignore").decode().strip()

    def _words_for(self, text: str) -> Words:
        if isinstance(self._occasion, WakeWord):
            self._show(Emotion.HAPPY)
            return partial(_recite, self._occasion.greeting)
        self._tools.history.user_said(text)
        settings = self._tools.settings.conversation
        return partial(
            think,
            self._tools.engines.llm,
            self._tools.history.dialogue(settings.prompt),
            settings=settings,
            on_first_piece=partial(self._mark, "first_token_ms"),
            on_first_sentence=self._on_first_sentence,
        )

    def _on_first_sentence(self, sentence: str) -> None:
        self._mark("first_sentence_ms")
        self._show(first_emotion(sentence) or Emotion.NEUTRAL)

    def _show(self, emotion: Emotion) -> None:
        if self._tools.shows_emotion:
            self._tools.outbox.post(LlmEmotion(emotion), turn=self.number)

    async def _say(self, playout: Playout, words: Words) -> None:
        """Speak the sentences that `words` sends; failures of engines are noted, not raised."""
        tools = self._tools
        voice = Voice(
            tools.engines.tts,
            SpeechEncoder(
                tools.speech.sample_rate,
                frame_ms=tools.speech.frame_duration,
                bitrate=tools.settings.audio.bitrate,
                complexity=tools.settings.audio.complexity,
            ),
            tools.run_encoding,
            packet_ms=tools.speech.frame_duration,
            seconds=tools.settings.conversation.synthesis_seconds,
        )
        to_voice, sentences = trio.open_memory_channel[str](_SENTENCES_AHEAD)
        to_encoder, sound = trio.open_memory_channel[Speech](SLICES_AHEAD)
        to_playout, speech = trio.open_memory_channel[SpeechItem](
            max(_PACKETS_AHEAD_MS // tools.speech.frame_duration, 1)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._noting, "llm", partial(words, to_voice))
            nursery.start_soon(self._noting, "tts", partial(voice.speak, sentences, to_encoder))
            nursery.start_soon(voice.encode, sound, to_playout)
            await playout.play(speech)

    async def _noting(self, stage: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except EngineError as error:
            self._note(stage, error)

    def _note(self, stage: str, error: EngineError) -> None:
        self._failures.setdefault(stage, error)
        logger.bind(
            stage=stage, engine=error.engine, category=error.category.value, reason=str(error)
        ).error("engine failed")

    async def _apologise(self, playout: Playout, text: str) -> None:
        """Tell the user in speech, or on the screen where speech is what failed."""
        if "tts" not in self._failures:
            await self._say(playout, partial(_recite, ENGINE_FAILED.like(text)))
        if "tts" in self._failures:
            self._tools.outbox.post(
                Alert(SERVICE_FAILED.both, ENGINE_FAILED.both), turn=self.number
            )


Words: TypeAlias = "Callable[[trio.MemorySendChannel[str]], Awaitable[None]]"
"""Sends sentences to be spoken and closes the channel."""


async def _recite(text: str, sentences: trio.MemorySendChannel[str]) -> None:
    """Send a text of our own."""
    async with sentences:
        await sentences.send(text)
