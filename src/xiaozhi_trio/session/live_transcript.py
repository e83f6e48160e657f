"""Recognition while somebody speaks, by an engine that takes audio as it comes.

It saves time and nothing else: whatever goes wrong with it, the utterance is recognised
in one piece when its transcript is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.streaming import recognition_stream, streaming_recognizer
from xiaozhi_trio.session.recognition import Recognition

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.engines.protocols import SpeechRecognizer, StreamingRecognizer, Transcript
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.listening import Utterance
    from xiaozhi_trio.session.microphone import Microphone

_PIECES_BEHIND: Final = 100
"""Packets that may wait for the engine, 2 to 6 s of audio; a slower one is given up."""


class Question:
    """Asks for the transcript of the audio up to here."""

    def __init__(self, live: LiveTranscript) -> None:
        self._live = live
        self._settled = trio.Event()
        self._transcript: Transcript | None = None
        self.is_open = True
        """Somebody waits for it."""

    async def answer(self) -> Transcript | None:
        """The transcript, None where the stream has none to give."""
        await self._settled.wait()
        return self._transcript

    def settle(self, transcript: Transcript | None) -> None:
        """Give the answer; only the first one counts."""
        if self.is_open:
            self.is_open = False
            self._transcript = transcript
            self._settled.set()

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        self.settle(None)
        self._live.stop_if_useless()

    def give_up(self) -> None:
        """It took too long: no stream that slow is of use."""
        self._live.cancel()


class LiveTranscript:
    """One utterance, recognised while it is spoken. Run it once."""

    def __init__(
        self, recognizer: StreamingRecognizer, number: int, *, on_ended: Callable[[], None]
    ) -> None:
        """`number` is the utterance's; `on_ended` is called when the engine takes it for over."""
        self.number = number
        self.fed = 0
        """Bytes of the utterance that were handed over."""
        self.says_ended = False
        """The engine takes the last audio it was given for the end."""
        self._recognizer = recognizer
        self._on_ended = on_ended
        self._scope = trio.CancelScope()
        self._to_engine, self._orders = trio.open_memory_channel[bytes | Question](_PIECES_BEHIND)
        self._questions: list[Question] = []
        self._is_finished = False
        self._is_over = False

    def feed(self, pcm: bytes) -> None:
        """The next audio of the utterance. Never waits: where there is no room, streaming ends."""
        if pcm:
            self.fed += len(pcm)
            self._order(pcm)

    def ask(self) -> Question:
        """A question about the audio so far."""
        question = Question(self)
        self._questions.append(question)
        self._order(question)
        if self._is_over or self._is_finished:
            question.settle(None)
        return question

    def _order(self, order: bytes | Question) -> None:
        if self._is_over or self._is_finished:
            return
        try:
            self._to_engine.send_nowait(order)
        except trio.WouldBlock:
            logger.bind(engine=self._recognizer.name).warning("recognition falls behind the speech")
            self.cancel()

    def finish(self) -> None:
        """There is no more audio: answer what was asked, then end."""
        self._is_finished = True
        self._to_engine.close()
        self.stop_if_useless()

    def stop_if_useless(self) -> None:
        """End at once where nobody waits for an answer, nor will."""
        if self._is_finished and not any(question.is_open for question in self._questions):
            self._scope.cancel()

    def cancel(self) -> None:
        """End now; what was asked has no answer."""
        self._scope.cancel()
        self._end()

    def _end(self) -> None:
        self._is_over = True
        for question in self._questions:
            question.settle(None)

    async def run(self) -> None:
        """Recognise until there is no more audio, or the engine fails."""
        try:
            with self._scope, self._to_engine, self._orders:
                await self._serve()
        except EngineError as error:
            logger.bind(
                engine=error.engine, category=error.category.value, reason=str(error)
            ).warning("recognition of running speech failed")
        finally:
            self._end()

    async def _serve(self) -> None:
        async with recognition_stream(self._recognizer) as stream:
            async for order in self._orders:
                if isinstance(order, Question):
                    if order.is_open:
                        order.settle(await stream.transcript())
                    continue
                await stream.accept(order)
                had_ended, self.says_ended = self.says_ended, stream.says_ended
                if self.says_ended and not had_ended:
                    self._on_ended()


class Transcriber:
    """Makes the transcripts of one microphone's utterances, early where the engine can."""

    def __init__(
        self,
        slot: EngineSlot[SpeechRecognizer],
        nursery: trio.Nursery,
        *,
        seconds: float,
        on_ended: Callable[[], None],
    ) -> None:
        """`seconds` is the longest wait for one; `on_ended` as of `LiveTranscript`."""
        self._slot = slot
        self._nursery = nursery
        self._seconds = seconds
        self._on_ended = on_ended
        self._live: LiveTranscript | None = None

    def says_ended(self, utterance: Utterance) -> bool:
        """The engine takes the utterance for ended."""
        live = self._live
        return live is not None and live.number == utterance.number and live.says_ended

    def follows(self, utterance: Utterance) -> bool:
        """The engine has heard the utterance while it was spoken, and only has to be asked."""
        return self._live is not None and self._live.number == utterance.number

    def follow(self, microphone: Microphone) -> None:
        """Hand over what the microphone has heard of an utterance since the last call."""
        number = microphone.utterance_number
        if self._live is not None and self._live.number != number:
            self._live.finish()
            self._live = None
        if self._live is None and number:
            recognizer = streaming_recognizer(self._slot.ready_nowait())
            if recognizer is None:
                return
            self._live = LiveTranscript(recognizer, number, on_ended=self._on_ended)
            self._nursery.start_soon(self._live.run)
        if self._live is not None:
            self._live.feed(microphone.utterance_since(self._live.fed))

    def recognise(self, utterance: Utterance, *, edited: Callable[[str], str] = str) -> Recognition:
        """The transcript of it all, begun at once; `edited` as of `Recognition`."""
        question = None
        live = self._live
        if live is not None and live.number == utterance.number:
            live.feed(utterance.pcm[live.fed :])
            question = live.ask()
        recognition = Recognition(
            self._slot, utterance.pcm, seconds=self._seconds, question=question, edited=edited
        )
        self._nursery.start_soon(recognition.run)
        return recognition
