"""The transcript of what was said, asked for as soon as it may be wanted.

A recogniser of whole utterances is given what is there when a short pause begins, so
that the transcript is ready when the pause turns out to be the end. One that takes
audio as it comes is fed all along and asked at the pause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.session.stage import stage_deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.engines.protocols import SpeechRecognizer, Transcript
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.live_transcript import Question


class Recognition:
    """One transcript, being made or made. Run it once, ask it as often as needed."""

    def __init__(
        self,
        slot: EngineSlot[SpeechRecognizer],
        pcm: bytes,
        *,
        seconds: float,
        question: Question | None = None,
        edited: Callable[[str], str] = str,
    ) -> None:
        """`seconds` is the longest wait for the engine, `edited` what counts of what it heard.

        `question` is put to one that was fed all along; where it has no answer, or none
        within half the time, the audio is recognised in one piece.
        """
        self._slot = slot
        self._pcm = pcm
        self._seconds = seconds
        self._question = question
        self._edited = edited
        self._scope = trio.CancelScope()
        self._settled = trio.Event()
        self._began = trio.current_time()
        self._ended: float | None = None
        self._outcome: Transcript | EngineError

    async def run(self) -> None:
        """Recognise; returns when there is a transcript or an error, or after `cancel`."""
        with self._scope:
            try:
                with stage_deadline("asr", self._seconds):
                    heard = await self._recognised()
                    self._outcome = attrs.evolve(heard, text=self._edited(heard.text))
            except EngineError as error:
                self._outcome = error
            self._ended = trio.current_time()
            self._settled.set()

    async def _recognised(self) -> Transcript:
        if self._question is not None:
            with trio.move_on_after(self._seconds / 2) as waiting:
                transcript = await self._question.answer()
                if transcript is not None:
                    return transcript
            if waiting.cancelled_caught:
                self._question.give_up()
        recognizer = await self._slot.ready()
        return await recognizer.transcribe(self._pcm)

    def cancel(self) -> None:
        """Nobody wants the transcript any more."""
        if self._question is not None:
            self._question.withdraw()
        self._scope.cancel()

    @property
    def seconds_spent(self) -> float:
        """What it took, or has taken until now."""
        ended = trio.current_time() if self._ended is None else self._ended
        return ended - self._began

    async def transcript(self) -> Transcript:
        """The transcript, as soon as it is there. Raises `EngineError` where there is none."""
        await self._settled.wait()
        if isinstance(self._outcome, EngineError):
            raise self._outcome.copy() from self._outcome
        return self._outcome
