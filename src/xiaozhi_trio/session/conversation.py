"""Who speaks when: what listening, aborting and typing mean for the turns of a session.

At most one turn has the loudspeaker. Beside it there may be a draft: a turn for what
is being said now, which nobody hears until it is certain that it was said, that it is
finished, and that it was said to us.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

from xiaozhi_trio.engines.edge import engine_edge
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.slots import SlotStatus
from xiaozhi_trio.session.echo_trust import EchoTrust
from xiaozhi_trio.session.end_of_turn.strategy import Pause
from xiaozhi_trio.session.interruption import Interruption
from xiaozhi_trio.session.judgement import Verdict, judge
from xiaozhi_trio.session.listening import (
    BYTES_PER_MS,
    Began,
    Ended,
    Forgotten,
    Paused,
    Resumed,
    TentativelyEnded,
    Utterance,
)
from xiaozhi_trio.session.live_transcript import Transcriber
from xiaozhi_trio.session.phrases import ENGINE_FAILED, SERVICE_FAILED, farewell
from xiaozhi_trio.session.turn import Occasion, Parting, Spoken, Turn, TurnTools, Typed, WakeWord
from xiaozhi_trio.session.wake_words import WakeWords
from xiaozhi_trio.telemetry.turn_trace import Moment
from xiaozhi_trio.wire.messages import Alert, ListenMode, TtsStop
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.engines.protocols import Transcript
    from xiaozhi_trio.session.end_of_turn.strategy import EndOfTurn
    from xiaozhi_trio.session.idle_clock import IdleClock
    from xiaozhi_trio.session.listening import Heard
    from xiaozhi_trio.session.microphone import Microphone
    from xiaozhi_trio.session.recognition import Recognition
    from xiaozhi_trio.telemetry.turn_trace import TurnTrace


_ECHO_SECONDS: Final = 3.0
"""How long after it was spoken a sentence may still be on its way through the recognition."""
_RECOGNITIONS: Final = 4
"""Of one turn's pauses, for each answer that may be prepared in vain: they cost a fraction of one,
and what they find keeps a dictated number, with a pause in every group, from being cut off."""
_NOISE: Final = "noise"
_NOTHING_SAID: Final = "nothing said"
_UNEXPLAINED: Final = frozenset({_NOISE, _NOTHING_SAID, Verdict.NOISE.value, Verdict.ECHO.value})
"""Why a reply goes on where what silenced it may have been the reply itself."""


class Conversation:
    """The turns of one device after its hello."""

    def __init__(
        self,
        tools: TurnTools,
        microphone: Microphone,
        end_of_turn: EndOfTurn,
        idle_clock: IdleClock,
        nursery: trio.Nursery,
        *,
        cancels_echo: bool,
        on_parting: Callable[[], None],
    ) -> None:
        """`nursery` is where turns live.

        `cancels_echo` is false for a device that leaves echo cancellation to the
        server: what its microphone hears while it speaks is its own loudspeaker.
        `on_parting` is called where a farewell has been heard.
        """
        self._tools = tools
        self._microphone = microphone
        self._end_of_turn = end_of_turn
        self._idle_clock = idle_clock
        self._nursery = nursery
        self._trust = EchoTrust(cancels=cancels_echo)
        self._on_parting = on_parting
        self._wake_words = WakeWords(tools.settings.conversation)
        self._called = ""
        self._mode: ListenMode | None = None
        self._turns = 0
        self._turn: Turn | None = None
        self._last_spoken: Turn | None = None
        self._draft: Turn | None = None
        self._refused_as = _NOTHING_SAID
        self._recognition: Recognition | None = None
        self._transcriber = Transcriber(
            tools.engines.asr,
            nursery,
            seconds=tools.settings.conversation.recognition_seconds,
            on_ended=self._recognizer_heard_end,
        )
        self._paused: Utterance | None = None
        self._weighing = trio.CancelScope()
        self._speculations = 0
        self._recognitions = 0
        self._trace: TurnTrace | None = None
        idle_clock.restart()

    @property
    def gap_deadline(self) -> float:
        """Trio time until which the next packet must come for an utterance not to be cut off."""
        return self._microphone.gap_deadline

    def packets_missing(self) -> None:
        """No packet came in the middle of an utterance: answer what there is."""
        logger.info("packets stopped in the middle of an utterance")
        utterance = self._microphone.end_early()
        if utterance is None:
            self._microphone.discard()
            self._go_on("packets stopped")
        else:
            self._ended(utterance)

    async def audio(self, packet: bytes, timestamp: int = 0) -> None:
        """The microphone's next packet, with its stamp."""
        if self._is_deaf():
            return
        noticed = await self._microphone.hear(packet, timestamp)
        if self._is_deaf():
            return
        self._trust.listens(
            self._microphone.heard_ms,
            we_speak=self._turn is not None and self._turn.is_speaking,
            voice=self._microphone.voiced_ms > 0,
        )
        if self._microphone.voiced_ms:
            self._voice_heard()
        for event in noticed:
            if not self._is_outdated(event):
                self._notice(event)
        self._transcriber.follow(self._microphone)

    def _is_outdated(self, event: Heard) -> bool:
        """Whether more has become part of the utterance since, from before its beginning."""
        return (
            isinstance(event, Paused | TentativelyEnded)
            and event.so_far.number != self._microphone.utterance_number
        )

    def _is_deaf(self) -> bool:
        """Whether what the microphone sends means nothing, for it should be closed.

        Until a reply is heard, the microphone of a device in auto mode is open: who goes
        on speaking is not finished.
        """
        turn = self._turn
        if turn is None or self._mode is ListenMode.REALTIME:
            return False
        return turn.has_spoken or not isinstance(turn.occasion, Spoken)

    @property
    def _is_free_of_echo(self) -> bool:
        """Whether voice is somebody's, also while our own speech is in the room."""
        if self._trust.is_doubted:
            return False
        return self._trust.cancels or self._microphone.is_free_of_echo

    def _voice_heard(self) -> None:
        turn, settings = self._turn, self._tools.settings.listening
        voiced_ms = self._microphone.voiced_ms
        if turn is not None and turn.is_speaking:
            if self._is_free_of_echo and voiced_ms >= settings.barge_in_ms:
                logger.bind(voiced_ms=voiced_ms).info("barge-in")
                turn.suspend()
            return
        # Before it becomes an utterance of its own, which would replace what it goes on from.
        if voiced_ms < min(settings.barge_in_ms, settings.min_voice_ms):
            return
        if turn is None:
            self._idle_clock.restart()
        elif not turn.has_spoken:
            self._take_back(turn)
        draft = self._draft
        if draft is not None and draft.is_committed:
            self._take_back(draft)

    def _take_back(self, turn: Turn) -> None:
        """The user goes on speaking before the answer to what was said so far has begun.

        What was cut for its length is answered nevertheless: it can hold no more.
        """
        if not isinstance(turn.occasion, Spoken):
            return
        if len(turn.occasion.utterance.pcm) >= self._longest_utterance:
            return
        logger.bind(turn=turn.number).info("speech goes on before its answer")
        if turn is self._draft:
            self._draft = None
        else:
            self._turn = None
        turn.interrupt()
        # They are about the newer part alone.
        self._stop_weighing()
        self._forget_recognition()
        self._idle_clock.restart()
        self._microphone.put_back(turn.occasion.utterance)

    def _notice(self, event: Heard) -> None:
        match event:
            case Began():
                self._count_anew()
                self._trace = self._new_trace("spoken")
                self._trace.mark(Moment.VOICE_START)
            case Paused(so_far) if not self._is_too_little(so_far):
                self._recognise_early(so_far, at_most=self._most_speculations)
            case TentativelyEnded(so_far) if not self._is_too_little(so_far):
                self._tentatively_ended(so_far)
            case Resumed():
                if self._trace is not None:
                    self._trace.mark(Moment.VOICE_RESUMED)
                self._forget_speculation()
            case Ended(utterance):
                self._ended(utterance)
            case Forgotten():
                self._go_on(_NOISE)

    def _count_anew(self) -> None:
        """Another turn, in which as much may be done in vain."""
        self._speculations, self._recognitions = 0, 0

    @property
    def _most_speculations(self) -> int:
        settings = self._tools.settings.listening
        return settings.max_speculations if settings.speculation else 0

    def _recognise_early(self, so_far: Utterance, *, at_most: int) -> None:
        """Recognise what may not be the end, if as many of the turn were not recognised before.

        Who pauses often is asked about later: first at every short pause, then at longer
        ones, at last only at the end. A recogniser that follows the speech is only asked how
        far it is. One that is busy is not asked, be it with what was taken back.
        """
        if self._recognition is not None or not self._most_speculations:
            return
        if self._tools.engines.asr.is_busy:
            return
        if not self._transcriber.follows(so_far):
            if self._recognitions >= at_most:
                return
            self._recognitions += 1
        self._recognition = self._recognise(so_far)

    @property
    def _may_speculate(self) -> bool:
        engines = self._tools.engines
        return (
            self._speculations < self._most_speculations
            # A recogniser may be busy with the very words that are to be answered.
            and self._recognition is not None
            and not (engines.llm.is_busy or engines.tts.is_busy)
        )

    def _recognise(self, utterance: Utterance) -> Recognition:
        if not utterance.begins_with_call:
            return self._transcriber.recognise(utterance)
        return self._transcriber.recognise(
            utterance, edited=partial(self._wake_words.taken_off, self._called)
        )

    def _tentatively_ended(self, so_far: Utterance) -> None:
        if self._trace is not None:
            self._trace.mark(Moment.TENTATIVE_END)
        self._recognise_early(so_far, at_most=_RECOGNITIONS * self._most_speculations)
        if self._may_speculate and self._draft is None:
            self._speculations += 1
            self._draft = self._prepare(so_far, speculative=True)
        if self._mode is not ListenMode.MANUAL:
            self._paused = so_far
            self._begin_to_weigh(so_far)

    def _begin_to_weigh(self, so_far: Utterance) -> None:
        self._weighing = trio.CancelScope()
        self._nursery.start_soon(self._weigh, so_far, self._recognition, self._weighing)

    def _recognizer_heard_end(self) -> None:
        """Its word may come later than the pause that was weighed without it."""
        if self._paused is not None:
            self._weighing.cancel()
            self._begin_to_weigh(self._paused)

    async def _weigh(
        self, so_far: Utterance, recognition: Recognition | None, scope: trio.CancelScope
    ) -> None:
        """Have the strategy decide how much silence is the end."""
        with scope:
            try:
                text = (await recognition.transcript()).text if recognition else ""
                pause = Pause(
                    pcm=so_far.pcm,
                    voiced_ms=so_far.voiced_ms,
                    transcript=text,
                    says_ended=self._transcriber.says_ended(so_far),
                )
                with engine_edge(self._tools.settings.listening.end_of_turn, "deciding the end"):
                    silence_ms = float(await self._end_of_turn.silence_ms(pause))
            except EngineError as error:
                logger.bind(engine=error.engine, reason=str(error)).warning("end of turn undecided")
                return
            await trio.lowlevel.checkpoint_if_cancelled()
            self._microphone.be_patient(silence_ms)

    def _prepare(self, utterance: Utterance, *, speculative: bool) -> Turn:
        """A turn that answers the utterance, held back for now."""
        self._refused_as = _NOTHING_SAID
        if self._recognition is None:
            self._recognition = self._recognise(utterance)
        if self._trace is None:
            self._trace = self._new_trace("spoken")

        def accepts(transcript: Transcript | None) -> bool:
            return self._accepts(turn, transcript, utterance)

        occasion = Spoken(utterance, self._recognition)
        turn = self._start(occasion, self._trace, speculative=speculative, accepts=accepts)
        return turn

    def _is_too_little(self, utterance: Utterance) -> bool:
        """Whether it is too short to interrupt the reply that is being heard."""
        return (
            self._turn is not None
            and self._turn.is_speaking
            and utterance.voiced_ms < self._tools.settings.listening.barge_in_ms
        )

    def _accepts(self, draft: Turn, transcript: Transcript | None, utterance: Utterance) -> bool:
        """Whether a transcript is worth an answer; where it is, an older reply ends for good.

        Without one there is nothing but to say sorry, or to go on with what was being said.
        """
        if transcript is None and self._turn is not None:
            self._refused_as = "not recognised"
            return False
        verdict = Verdict.SPEECH
        if self._mode is not ListenMode.MANUAL and transcript is not None:
            verdict = judge(
                transcript,
                voiced_ms=utterance.voiced_ms,
                languages=self._tools.settings.listening.languages,
                interrupts=self._turn is not None and self._turn.has_spoken,
                saying=self._said_during(utterance),
            )
        if verdict is Verdict.ECHO:
            self._trust.heard_us()
        if verdict is not Verdict.SPEECH:
            self._refused_as = verdict.value
            logger.bind(verdict=verdict.value, voiced_ms=utterance.voiced_ms).info(
                "heard, but not said to us"
            )
            return False
        if self._turn is not None:
            self._turn.interrupt()
            self._turn = None
            self._idle_clock.restart()
        if draft.is_committed:
            self._promote(draft)
        return True

    def _said_during(self, utterance: Utterance) -> str:
        """What the loudspeaker said while the microphone heard this, where it may hear it."""
        turn = self._turn
        if turn is None and not self._is_free_of_echo and self._mode is ListenMode.REALTIME:
            turn = self._last_spoken
        if turn is None:
            return ""
        seconds = len(utterance.pcm) / BYTES_PER_MS / 1000 + _ECHO_SECONDS
        return turn.saying(seconds=seconds)

    def _promote(self, draft: Turn) -> None:
        self._turn, self._draft = draft, None
        self._idle_clock.hold()

    def _forget_speculation(self) -> None:
        """What was taken for the end of a turn was none."""
        self._stop_weighing()
        self._forget_recognition()
        if self._draft is not None and not self._draft.is_committed:
            self._draft.discard()
            self._draft = None

    def _stop_weighing(self) -> None:
        self._weighing.cancel()
        self._paused = None

    def _forget_recognition(self) -> None:
        if self._recognition is not None:
            self._recognition.cancel()
            if self._trace is not None:
                self._trace.recognised_in_vain(self._recognition.seconds_spent)
            self._recognition = None

    def _ended(self, utterance: Utterance) -> None:
        """Answer what was said, with what was prepared for it."""
        log = logger.bind(
            voiced_ms=utterance.voiced_ms, bytes=len(utterance.pcm), cut=utterance.cut
        )
        if self._is_too_little(utterance):
            log.debug("utterance too short to interrupt")
            self._forget_speculation()
            return
        log.debug("utterance ended")
        self._stop_weighing()
        if self._draft is not None and self._draft.is_committed:
            utterance = self._joined(self._draft, utterance)
        draft = self._draft or self._prepare(utterance, speculative=False)
        trace = self._trace or self._new_trace("spoken")
        trace.mark(Moment.COMMITTED_END)
        self._draft, self._recognition, self._trace = draft, None, None
        self._count_anew()
        self._idle_clock.hold()
        draft.commit()
        if draft.is_over:
            trace.conclude(draft.outcome)
            self._over(draft)
        elif draft.is_accepted:
            self._promote(draft)
        self._transcriber.follow(self._microphone)

    @property
    def _longest_utterance(self) -> int:
        """Bytes at which speech is cut and answered."""
        return int(self._tools.settings.listening.max_utterance_seconds * 1000) * BYTES_PER_MS

    def _joined(self, draft: Turn, utterance: Utterance) -> Utterance:
        """The utterance, with the one before it that was not recognised yet."""
        self._draft = None
        self._forget_recognition()
        draft.interrupt()
        if draft.is_accepted or not isinstance(draft.occasion, Spoken):
            return utterance
        before = draft.occasion.utterance
        return Utterance(
            # Of more than is answered in one go the latest is what is wanted now.
            (before.pcm + utterance.pcm)[-self._longest_utterance :],
            before.voiced_ms + utterance.voiced_ms,
            utterance.cut,
            begins_with_call=before.begins_with_call,
        )

    @property
    def _is_interrupted(self) -> bool:
        """A reply is suspended, and it will turn out whether for good."""
        return self._turn is not None and self._turn.is_suspended

    def _go_on(self, reason: str) -> None:
        """The interruption was none: let the interrupted reply go on."""
        if self._turn is not None and self._is_interrupted and self._draft is None:
            logger.bind(turn=self._turn.number, reason=reason).info("false interruption")
            if reason in _UNEXPLAINED:
                self._trust.fell_silent_for_nothing()
            self._turns += 1
            self._turn.resume(self._turns, reason=reason)

    def listen_start(self, mode: ListenMode) -> None:
        """The device opens its microphone.

        It ends a reply in progress only where a button was pressed for it: clients
        that send text and `listen start` in one go want to hear the answer.
        """
        logger.bind(mode=mode.value).debug("listen start")
        goes_on = mode is self._mode is ListenMode.REALTIME and self._microphone.is_open
        if goes_on and self._is_interrupted:
            # Some clients answer every `tts stop` with it; whose voice made us say that
            # is still speaking.
            return
        self._forget_speculation()
        self._count_anew()
        self._trace = None
        if mode is ListenMode.MANUAL:
            self._interrupt(Interruption.BUTTON)
        elif self._tools.engines.vad.state.status is SlotStatus.FAILED:
            self._tools.outbox.post(Alert(SERVICE_FAILED.both, ENGINE_FAILED.both))
        self._mode = mode
        self._microphone.open(mode)
        self._transcriber.follow(self._microphone)
        self._go_on("listen start")

    def listen_stop(self) -> None:
        """The device closed its microphone: answer what was said into it."""
        utterance = self._microphone.close()
        said = utterance.voiced_ms if utterance else 0
        logger.bind(voiced_ms=said).debug("listen stop")
        if utterance is not None and said >= self._tools.settings.listening.min_voice_ms:
            self._ended(utterance)
            return
        self._forget_speculation()
        self._transcriber.follow(self._microphone)
        self._go_on("listen stop")
        if self._turn is None:
            self._tools.outbox.post(TtsStop())

    def detected(self, text: str) -> None:
        """A wake word was heard, or a text typed.

        Raises `ProtocolViolation` where there is no text.
        """
        if not text:
            raise ProtocolViolation("text_missing", "listen detect without a text")
        greeting = self._wake_words.greeting_for(text)
        if greeting is not None:
            self._called = text
            self._microphone.called()
        if greeting is None:
            self._begin(Typed(text), Interruption.TYPED)
        elif greeting:
            self._begin(WakeWord(text, greeting), Interruption.WAKE_WORD)
        else:
            self._forget_speculation()
            self._interrupt(Interruption.WAKE_WORD)

    def part(self) -> bool:
        """Take leave, as nobody has spoken for long; tells whether there is anything to say."""
        settings = self._tools.settings.conversation
        words = farewell(settings).like(self._tools.history.last_said)
        if not (settings.says_farewell_when_idle and words):
            return False
        self._begin(Parting(words), Interruption.FAREWELL)
        return True

    def abort(self, reason: str) -> None:
        """Silence; the answer is one `tts stop`, even where nothing was spoken.

        Firmware that aborts by its button stays in "speaking" until it gets one. What
        the microphone sends after it is stray, save in realtime mode, in which the
        device never says `listen start` again.
        """
        logger.bind(reason=reason[:80]).info("abort")
        self._forget_speculation()
        called = reason == "wake_word_detected"
        # A wake word makes firmware throw away what it holds (`AudioService::ResetDecoder`).
        spoke = self._interrupt(
            Interruption.WAKE_WORD if called else Interruption.ABORT, plays_on=not called
        )
        if not spoke:
            self._tools.outbox.post(TtsStop())
        if self._mode is ListenMode.REALTIME:
            self._microphone.discard()
        else:
            self._microphone.close()
        self._transcriber.follow(self._microphone)

    def _interrupt(self, reason: Interruption, *, plays_on: bool = True) -> bool:
        """End the turn in progress, if any; tells whether that said `tts stop`."""
        if self._draft is not None and self._draft.is_committed and not self._draft.is_accepted:
            draft, self._draft = self._draft, None
            draft.interrupt()
            self._idle_clock.restart()
        turn, self._turn = self._turn, None
        if turn is None:
            return False
        spoke = turn.is_speaking
        turn.interrupt(reason, plays_on=plays_on)
        self._idle_clock.restart()
        return spoke

    def _begin(self, occasion: Occasion, reason: Interruption) -> None:
        """Answer at once something that needs no thought about whether it was said."""
        self._forget_speculation()
        self._interrupt(reason)
        if self._mode is not ListenMode.MANUAL:
            # Voice from before a turn is no reason to interrupt it.
            self._microphone.discard()
        self._transcriber.follow(self._microphone)
        self._idle_clock.hold()
        trace = self._new_trace(type(occasion).__name__.lower())
        self._turn = self._start(occasion, trace, speculative=False, accepts=lambda _: True)
        self._turn.commit()

    def _new_trace(self, occasion: str) -> TurnTrace:
        return self._tools.traces.begin(
            0, occasion, device=self._tools.device, session=self._tools.session
        )

    def _start(
        self,
        occasion: Occasion,
        trace: TurnTrace,
        *,
        speculative: bool,
        accepts: Callable[[Transcript | None], bool],
    ) -> Turn:
        self._turns += 1
        trace.number = self._turns
        turn = Turn(
            self._turns, occasion, self._tools, trace, speculative=speculative, accepts=accepts
        )
        self._nursery.start_soon(self._live_through, turn)
        return turn

    async def _live_through(self, turn: Turn) -> None:
        with logger.contextualize(turn=turn.number):
            await turn.run()
        self._over(turn)

    def _over(self, turn: Turn) -> None:
        if turn is self._draft and turn.is_committed:
            self._draft = None
        elif turn is self._turn:
            self._turn, self._last_spoken = None, turn
        else:
            return
        self._idle_clock.restart()
        if isinstance(turn.occasion, WakeWord) and turn.has_spoken:
            self._microphone.forget_pre_roll()
        if turn.parts and turn.outcome in ("finished", "failed"):
            self._on_parting()
        self._go_on(self._refused_as)
        self._listen_again(turn)

    def _listen_again(self, turn: Turn) -> None:
        """After a turn the ear opens by itself where the device expects it to.

        Firmware in auto mode says `listen start` again after `tts stop`, the browser
        page does not. A button user whose words came to nothing is told so.
        """
        if self._mode is ListenMode.AUTO and turn.has_spoken:
            self._microphone.open(ListenMode.AUTO)
        elif self._mode is ListenMode.MANUAL and not turn.has_spoken and self._turn is None:
            self._tools.outbox.post(TtsStop())
