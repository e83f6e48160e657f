"""Who speaks when: what listening, aborting and typing mean for the turns of a session.

At most one turn lives at a time; whatever ends it early is one `Turn.interrupt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from xiaozhi_trio.engines.slots import SlotStatus
from xiaozhi_trio.session.phrases import ENGINE_FAILED, SERVICE_FAILED
from xiaozhi_trio.session.turn import Occasion, Spoken, Turn, TurnTools, Typed, WakeWord
from xiaozhi_trio.session.wake_words import WakeWords
from xiaozhi_trio.wire.messages import Alert, ListenMode, TtsStop
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    import trio

    from xiaozhi_trio.session.idle_clock import IdleClock
    from xiaozhi_trio.session.listening import Utterance
    from xiaozhi_trio.session.microphone import Microphone


class Conversation:
    """The turns of one device after its hello."""

    def __init__(
        self,
        tools: TurnTools,
        microphone: Microphone,
        idle_clock: IdleClock,
        nursery: trio.Nursery,
        *,
        cancels_echo: bool,
    ) -> None:
        """`nursery` is where turns live.

        `cancels_echo` is false for a device that leaves echo cancellation to the
        server: what its microphone hears while it speaks is its own loudspeaker.
        """
        self._tools = tools
        self._microphone = microphone
        self._idle_clock = idle_clock
        self._nursery = nursery
        self._cancels_echo = cancels_echo
        self._wake_words = WakeWords(tools.settings.conversation)
        self._turn: Turn | None = None
        self._turns = 0
        self._mode: ListenMode | None = None
        idle_clock.restart()

    @property
    def gap_deadline(self) -> float:
        """Trio time until which the next packet must come for an utterance not to be cut off."""
        return self._microphone.gap_deadline

    def packets_missing(self) -> None:
        """No packet came in the middle of an utterance: answer what there is."""
        logger.info("packets stopped in the middle of an utterance")
        utterance = self._microphone.end_early()
        if utterance is not None:
            self._answer(utterance)

    async def audio(self, packet: bytes) -> None:
        """The microphone's next packet."""
        if self._turn is not None and not self._hears_while_speaking:
            return
        utterance = await self._microphone.hear(packet)
        voiced_ms = self._microphone.voiced_ms
        if self._turn is not None:
            if voiced_ms >= self._tools.settings.listening.barge_in_ms:
                logger.bind(voiced_ms=voiced_ms).info("barge-in")
                self._interrupt()
        elif voiced_ms:
            self._idle_clock.restart()
        if utterance is not None:
            self._answer(utterance)

    def _answer(self, utterance: Utterance) -> None:
        """Answer what was said, unless it is too little to interrupt the turn in progress."""
        log = logger.bind(
            voiced_ms=utterance.voiced_ms, bytes=len(utterance.pcm), cut=utterance.cut
        )
        least_ms = self._tools.settings.listening.barge_in_ms
        if self._turn is not None and utterance.voiced_ms < least_ms:
            log.debug("utterance too short to interrupt")
            return
        log.debug("utterance ended")
        self._begin(Spoken(utterance))

    @property
    def _hears_while_speaking(self) -> bool:
        return self._mode is ListenMode.REALTIME and self._cancels_echo

    def listen_start(self, mode: ListenMode) -> None:
        """The device opens its microphone.

        It ends a reply in progress only where a button was pressed for it: clients
        that send text and `listen start` in one go want to hear the answer.
        """
        logger.bind(mode=mode.value).debug("listen start")
        if mode is ListenMode.MANUAL:
            self._interrupt()
        elif self._tools.engines.vad.state.status is SlotStatus.FAILED:
            self._tools.outbox.post(Alert(SERVICE_FAILED.both, ENGINE_FAILED.both))
        self._mode = mode
        self._microphone.open(mode)

    def listen_stop(self) -> None:
        """The device closed its microphone: answer what was said into it."""
        utterance = self._microphone.close()
        said = utterance.voiced_ms if utterance else 0
        logger.bind(voiced_ms=said).debug("listen stop")
        if utterance is not None and said >= self._tools.settings.listening.min_voice_ms:
            self._begin(Spoken(utterance))
        elif self._turn is None:
            self._tools.outbox.post(TtsStop())

    def detected(self, text: str) -> None:
        """A wake word was heard, or a text typed.

        Raises `ProtocolViolation` where there is no text.
        """
        if not text:
            raise ProtocolViolation("text_missing", "listen detect without a text")
        greeting = self._wake_words.greeting_for(text)
        if greeting is None:
            self._begin(Typed(text))
        elif greeting:
            self._begin(WakeWord(text, greeting))
        else:
            self._interrupt()

    def abort(self, reason: str) -> None:
        """Silence; the answer is one `tts stop`, even where nothing was spoken.

        Firmware that aborts by its button stays in "speaking" until it gets one. What
        the microphone sends after it is stray, save in realtime mode, in which the
        device never says `listen start` again.
        """
        logger.bind(reason=reason[:80]).info("abort")
        if not self._interrupt():
            self._tools.outbox.post(TtsStop())
        if self._mode is not ListenMode.REALTIME:
            self._microphone.close()

    def _interrupt(self) -> bool:
        """End the turn in progress, if any; tells whether that said `tts stop`."""
        turn, self._turn = self._turn, None
        if turn is None:
            return False
        spoke = turn.is_speaking
        turn.interrupt()
        self._idle_clock.restart()
        return spoke

    def _begin(self, occasion: Occasion) -> None:
        self._interrupt()
        if self._mode is not ListenMode.MANUAL:
            # Voice from before a turn is no reason to interrupt it.
            self._microphone.discard()
        self._idle_clock.hold()
        self._turns += 1
        self._turn = Turn(self._turns, occasion, self._tools)
        self._nursery.start_soon(self._live_through, self._turn)

    async def _live_through(self, turn: Turn) -> None:
        with logger.contextualize(turn=turn.number):
            await turn.run()
        if self._turn is turn:
            self._turn = None
            self._idle_clock.restart()
            self._listen_again(turn)

    def _listen_again(self, turn: Turn) -> None:
        """After a turn the ear opens by itself where the device expects it to.

        Firmware in auto mode says `listen start` again after `tts stop`, the browser
        page does not. A button user whose words came to nothing is told so.
        """
        if self._mode is ListenMode.AUTO:
            self._microphone.open(ListenMode.AUTO)
        elif self._mode is ListenMode.MANUAL and not turn.has_spoken:
            self._tools.outbox.post(TtsStop())
