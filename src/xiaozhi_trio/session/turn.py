"""One turn: what the user said, and the reply, in one cancel scope.

The stages run side by side, joined by bounded channels: the language model writes
the next sentence while one is synthesised and an earlier one plays. Interrupting a
turn is one call: from then on nothing of it reaches the device, and the history
holds what was heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio
from loguru import logger

from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import Transcript
from xiaozhi_trio.engines.slots import EngineSet
from xiaozhi_trio.session.clearance import Clearance
from xiaozhi_trio.session.encoding import EncodingRunner
from xiaozhi_trio.session.exit_words import is_exit
from xiaozhi_trio.session.history import History
from xiaozhi_trio.session.interruption import Interruption
from xiaozhi_trio.session.listening import Utterance
from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.session.phrases import ENGINE_FAILED, SERVICE_FAILED, farewell
from xiaozhi_trio.session.playout import Playout, SpeechItem, SpokenSentence
from xiaozhi_trio.session.recognition import Recognition
from xiaozhi_trio.session.speaking import Speaking
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.session.thinking import think
from xiaozhi_trio.session.tool_calls import ToolCalls
from xiaozhi_trio.session.voicing import SLICES_AHEAD, Speech, Voice
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper
from xiaozhi_trio.telemetry.turn_trace import Moment
from xiaozhi_trio.tools.end_conversation import EndConversation
from xiaozhi_trio.tools.tool import Tool
from xiaozhi_trio.tools.toolbox import Toolbox
from xiaozhi_trio.wire.emotion import Emotion, first_emotion
from xiaozhi_trio.wire.messages import Alert, AudioParams, LlmEmotion, Stt

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from xiaozhi_trio.telemetry.turn_trace import TurnTrace


_SENTENCES_AHEAD: Final = 2
_PACKETS_AHEAD_MS: Final = 300
"""Speech encoded but not yet sent; beyond it the encoder waits for the playout."""


@attrs.frozen
class Spoken:
    """The user said something."""

    utterance: Utterance
    recognition: Recognition
    """Of the utterance, perhaps begun before its end."""


@attrs.frozen
class Typed:
    """The user typed something, or a device sent text in place of speech."""

    text: str


@attrs.frozen
class WakeWord:
    """The device was called; the answer is a fixed greeting."""

    text: str
    greeting: str


@attrs.frozen
class Parting:
    """Nobody has spoken for long; the server takes its leave."""

    farewell: str


Occasion: TypeAlias = Spoken | Typed | WakeWord | Parting
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
    stock: StockSpeech
    device_tools: Callable[[], Sequence[Tool]] = tuple
    """What the device can be asked to do, as far as it is known by now."""
    traces: TraceKeeper
    device: str
    session: str


class Turn:
    """One occasion and its answer. Run it once.

    It begins as soon as there may be something to answer, and goes as far as the first
    sentence's speech; what leaves it for the device, and for the history, waits for
    `commit`.
    """

    def __init__(
        self,
        number: int,
        occasion: Occasion,
        tools: TurnTools,
        trace: TurnTrace,
        *,
        speculative: bool = False,
        accepts: Callable[[Transcript | None], bool],
    ) -> None:
        """`number` rises from turn to turn of a session; frames are stamped with it.

        `accepts` is asked once what was said is known, or None where it could not be
        recognised. Where it gives false, the turn ends without a word.
        """
        self.number = number
        self.occasion = occasion
        self._tools = tools
        self._whole_trace = trace
        self._trace = trace.attempt(speculative=speculative)
        self._accepts = accepts
        self._scope = trio.CancelScope()
        self._committed = trio.Event()
        self._speaking = Speaking(tools.outbox, number)
        self._playout: Playout | None = None
        self._clearance = Clearance()
        """Of tools that do something; not before the history holds what was asked."""
        self._tool_calls: ToolCalls | None = None
        self._failures: dict[str, EngineError] = {}
        self._asked = ""
        self._has_words = False
        """The language model has given a sentence."""
        self._emotion: Emotion | None = None
        self._outcome = ""
        self.has_spoken = False
        """The device has been told `tts start` at some time."""
        self.is_accepted = False
        """What was said is known, and worth an answer."""
        self.is_suspended = False
        """It was interrupted, perhaps for nothing."""
        self.parts = False
        """The session ends with it."""

    @property
    def is_speaking(self) -> bool:
        """The device has been told `tts start` and not yet `tts stop`."""
        return self._speaking.is_open

    @property
    def is_committed(self) -> bool:
        """Nothing is held back any more."""
        return self._committed.is_set()

    @property
    def is_over(self) -> bool:
        """Nothing of it is left to come."""
        return bool(self._outcome)

    def saying(self, *, seconds: float) -> str:
        """The words of it that could be heard within the last `seconds`."""
        return self._playout.saying(seconds=seconds) if self._playout else ""

    def commit(self) -> None:
        """The occasion is certain: speak as soon as there is something to say."""
        self._committed.set()

    def discard(self) -> None:
        """The occasion was none: vanish without a trace for the user."""
        self._trace.discard()
        self._outcome = self._outcome or "discarded"
        self._scope.cancel()

    def interrupt(
        self, reason: Interruption = Interruption.SPEECH, *, plays_on: bool = True
    ) -> None:
        """Silence the turn now, for good. Returns at once; its tasks unwind on their own.

        `plays_on` tells whether the device plays what it holds.
        """
        # A draft has sent nothing; an older turn may still be heard, and goes by its own number.
        dropped = self._tools.outbox.withdraw(self.number) if self.has_spoken else 0
        if self.is_speaking:
            self._trace.mark(Moment.INTERRUPTED, reason=reason.value)
        self._conclude("interrupted", dropped=dropped, plays_on=plays_on)
        self._scope.cancel()
        if isinstance(self.occasion, Spoken):
            self.occasion.recognition.cancel()

    def suspend(self) -> None:
        """Silence the turn now; `resume` or `interrupt` follows.

        Its stages wait where they are, for nobody takes from them what they make.
        """
        if self._playout is None or not self.is_speaking:
            raise RuntimeError("a turn that does not speak cannot be suspended")
        self._playout.suspend(dropped=self._tools.outbox.withdraw(self.number))
        self._speaking.close()
        self._clearance.withhold()
        self.is_suspended = True
        self._trace.mark(Moment.INTERRUPTED, reason=Interruption.BARGE_IN.value)

    def resume(self, number: int, *, reason: str) -> None:
        """Go on from the sentence in which the turn was suspended, under a new number.

        What was suspended when all of it was heard needs no loudspeaker any more.
        """
        if self._playout is None or not self.is_suspended:
            raise RuntimeError("a turn that was not suspended cannot be resumed")
        self.number = number
        self.is_suspended = False
        self._trace.mark(Moment.RESUMED, reason=reason)
        self._speaking = Speaking(self._tools.outbox, number)
        if self._playout.has_more:
            self._speaking.open()
        self._playout.resume(number)
        self._clearance.grant()

    async def run(self) -> None:
        """Live through the turn; whatever happens, `tts stop` follows `tts start`."""
        with self._scope:
            try:
                await self._answer()
                self._conclude("failed" if self._failures else "finished")
            finally:
                self._conclude("cancelled")

    def _conclude(self, outcome: str, *, dropped: int = 0, plays_on: bool = True) -> None:
        if self._outcome:
            return
        self._outcome = outcome
        if self._playout is not None:
            if self._tool_calls is not None:
                self._tools.history.tools_answered(self._tool_calls.messages)
            heard = self._playout.heard(dropped=dropped, plays_on=plays_on)
            self._tools.history.assistant_said(heard)
            if self._playout.first_packet_at is not None:
                self._trace.mark(Moment.FIRST_FRAME, at=self._playout.first_packet_at)
        self._speaking.close()
        if self.is_committed:
            self._whole_trace.conclude(outcome)

    @property
    def outcome(self) -> str:
        """How it ended, in one word; empty before that."""
        return self._outcome

    async def _answer(self) -> None:
        if isinstance(self.occasion, Parting):
            self.is_accepted = True
            self.parts = True
            await self._say_phrase(self.occasion.farewell)
        else:
            # More than the dialogue holds is of no use to anybody, and a burden to the device.
            bound = self._tools.settings.conversation.history_characters
            self._asked = (await self._understood())[:bound]
            if self._asked:
                # What people say at home is for those who ask to see it.
                logger.bind(text=self._asked).debug("understood")
                await self._reply()
            elif not (self._failures and self.is_accepted):
                return
        if self._failures:
            await self._apologise()
        await (await self._speak_up()).drained()
        self._trace.mark(Moment.DRAINED)

    async def _understood(self) -> str:
        """What the user said, "" where it is nothing or could not be recognised."""
        match self.occasion:
            case Spoken():
                try:
                    transcript = await self._transcribed(self.occasion.recognition)
                except EngineError as error:
                    self._note("asr", error)
                    self.is_accepted = self._accepts(None)
                    return ""
            case Typed(text) | WakeWord(text):
                transcript = Transcript(text.strip())
            case Parting():
                return ""
        if not transcript.text:
            return ""
        self.is_accepted = self._accepts(transcript)
        return transcript.text if self.is_accepted else ""

    async def _transcribed(self, recognition: Recognition) -> Transcript:
        with self._trace.stage("asr", engine=self._tools.engines.asr.state.engine) as stage:
            transcript = await recognition.transcript()
            stage.engine = transcript.engine or stage.engine
        # A model in a thread finishes what it began. A turn that was interrupted
        # meanwhile must not add to the history, where the next one has its place now.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._trace.mark(Moment.TRANSCRIPT)
        # A remote recogniser may send half of a surrogate pair, which no message can carry.
        text = transcript.text.encode("utf-8", "ignore").decode().strip()
        return attrs.evolve(transcript, text=text)

    async def _reply(self) -> None:
        settings = self._tools.settings.conversation
        if isinstance(self.occasion, WakeWord):
            self._show(Emotion.HAPPY)
            await self._say_phrase(self.occasion.greeting)
        elif is_exit(self._asked, settings.exit_words):
            self.parts = True
            await self._say_phrase(farewell(settings).like(self._asked))
        else:
            self._tool_calls = self._calls()
            await self._say(self._thoughts(self._tool_calls))
            if self.parts and not self._has_words:
                await self._say_phrase(farewell(settings).like(self._asked))

    def _calls(self) -> ToolCalls:
        settings = self._tools.settings.tools
        own: list[Tool] = [EndConversation(self._part)] if settings.end_conversation else []
        toolbox = Toolbox(
            [*own, *self._tools.device_tools()], result_characters=settings.result_characters
        )
        return ToolCalls(
            toolbox, at_most=settings.calls_per_turn, trace=self._trace, clearance=self._clearance
        )

    def _part(self) -> None:
        self.parts = True

    def _thoughts(self, calls: ToolCalls) -> Words:
        settings = self._tools.settings.conversation
        return partial(
            think,
            self._tools.engines.llm,
            self._tools.history.dialogue(settings.prompt, asked=self._asked),
            tools=calls,
            settings=settings,
            trace=self._trace,
            on_first_sentence=self._begin_reply,
        )

    def _begin_reply(self, sentence: str) -> None:
        self._has_words = True
        self._show(first_emotion(sentence) or Emotion.NEUTRAL)

    def _show(self, emotion: Emotion) -> None:
        self._emotion = emotion
        if self.is_speaking:
            self._post_emotion()

    def _post_emotion(self) -> None:
        if self._emotion is not None and self._tools.shows_emotion:
            self._tools.outbox.post(LlmEmotion(self._emotion), turn=self.number)

    async def _speak_up(self) -> Playout:
        """Wait until the occasion is certain, then tell the device and begin to speak."""
        await self._committed.wait()
        if self._playout is None:
            tools = self._tools
            if self._asked:
                tools.outbox.post(Stt(self._asked), turn=self.number)
                if not isinstance(self.occasion, WakeWord):
                    tools.history.user_said(self._asked)
            self._speaking.open()
            self.has_spoken = True
            self._trace.mark(Moment.SPEAKING)
            self._post_emotion()
            self._playout = Playout(
                tools.outbox,
                self.number,
                packet_ms=tools.speech.frame_duration,
                settings=tools.settings.playout,
            )
            self._clearance.grant()
        return self._playout

    async def _say(self, words: Words) -> None:
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
            trace=self._trace,
            go_on=self._committed,
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
            playout = await self._speak_up()
            await playout.play(speech)

    async def _say_phrase(self, phrase: str) -> None:
        """Speak a phrase of our own, from the stock where it is there."""
        packets = await self._tools.stock.packets(phrase, self._tools.speech)
        if not packets:
            await self._say(partial(_recite, phrase))
            return
        sentence = SpokenSentence(phrase, packets=len(packets), is_whole=True)
        to_playout, speech = trio.open_memory_channel[SpeechItem](len(packets) + 1)
        with to_playout:
            to_playout.send_nowait(sentence)
            for packet in packets:
                to_playout.send_nowait(packet)
        playout = await self._speak_up()
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

    async def _apologise(self) -> None:
        """Tell the user in speech, or on the screen where there is none to be had."""
        apology = ENGINE_FAILED.like(self._asked)
        has_stock = bool(await self._tools.stock.packets(apology, self._tools.speech))
        if has_stock or "tts" not in self._failures:
            await self._say_phrase(apology)
        if "tts" in self._failures and not has_stock:
            await self._committed.wait()
            self._tools.outbox.post(
                Alert(SERVICE_FAILED.both, ENGINE_FAILED.both), turn=self.number
            )


Words: TypeAlias = "Callable[[trio.MemorySendChannel[str]], Awaitable[None]]"
"""Sends sentences to be spoken and closes the channel."""


async def _recite(text: str, sentences: trio.MemorySendChannel[str]) -> None:
    """Send a text of our own."""
    async with sentences:
        await sentences.send(text)
