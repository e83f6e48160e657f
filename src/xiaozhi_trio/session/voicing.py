"""From sentences to Opus packets, the next sentence made while one plays.

Speech is synthesised as far ahead as there is room, for synthesis may be slow, but is
encoded only shortly before it is due: encoded at once, the replies of fifty devices
that speak up in one second would take the processor from the first words of each other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

from loguru import logger

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.pieces import NO_SPEECH, speech_fault
from xiaozhi_trio.engines.protocols import PcmChunk, engine_of
from xiaozhi_trio.session.playout import SpeechItem, SpokenSentence
from xiaozhi_trio.session.spoken_text import display_text, spoken_text
from xiaozhi_trio.session.stage import stage_deadline
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    import trio

    from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
    from xiaozhi_trio.engines.protocols import SpeechSynthesizer
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.encoding import EncodingRunner
    from xiaozhi_trio.telemetry.turn_trace import Attempt

_SLICE_MS: Final = 240
"""Speech encoded in one go; a cancelled turn waits for that much encoding (1.5 ms) at most."""
SLICES_AHEAD: Final = 40
"""Speech synthesised but not yet encoded; beyond it the synthesis waits for the playout."""
_MAX_FAILURES: Final = 2
"""One sentence may be unpronounceable; two in a row mean that the engine is down."""


Speech: TypeAlias = SpokenSentence | PcmChunk | None
"""A sentence, followed by its sound in slices, and None at its end."""


class Voice:
    """One turn's synthesizer and encoder, each for a task of its own."""

    def __init__(
        self,
        slot: EngineSlot[SpeechSynthesizer],
        encoder: SpeechEncoder,
        run_encoding: EncodingRunner,
        *,
        packet_ms: int,
        seconds: float,
        trace: Attempt,
        go_on: trio.Event,
    ) -> None:
        """`seconds` is the longest wait for each piece of speech.

        Only the first sentence is made before `go_on` is set.
        """
        self._slot = slot
        self._encoder = encoder
        self._run_encoding = run_encoding
        self._packet_ms = packet_ms
        self._seconds = seconds
        self._go_on = go_on
        self._trace = trace

    async def speak(
        self,
        sentences: trio.MemoryReceiveChannel[str],
        speech: trio.MemorySendChannel[Speech],
    ) -> None:
        """Send each sentence and its sound, then close both channels.

        A sentence that fails is left out. Raises `EngineError` where two in a row do, or
        where nothing at all could be spoken.
        """
        failures: list[EngineError] = []
        spoken = 0
        async with sentences, speech:
            async for text in sentences:
                words = spoken_text(text)
                if not words:
                    continue
                try:
                    await self._speak_one(SpokenSentence(display_text(text)), words, speech)
                except EngineError as error:
                    failures.append(error)
                    logger.bind(engine=error.engine, reason=str(error)).warning(
                        "sentence not synthesised"
                    )
                    if len(failures) == _MAX_FAILURES:
                        raise
                else:
                    failures.clear()
                    spoken += 1
                    await self._go_on.wait()
        if failures and not spoken:
            raise failures[-1]

    async def _speak_one(
        self, sentence: SpokenSentence, words: str, speech: trio.MemorySendChannel[Speech]
    ) -> None:
        await speech.send(sentence)
        milliseconds = 0.0
        with (
            self._trace.stage("tts", engine=self._slot.state.engine) as stage,
            stage_deadline("tts", self._seconds) as deadline,
        ):
            synthesizer = await self._slot.ready()
            async with synthesizer.synthesize(words) as chunks:
                stage.engine = engine_of(chunks, synthesizer)
                async for chunk in chunks:
                    deadline.pause()
                    _refuse(speech_fault(chunk), engine=synthesizer.name)
                    self._trace.mark(Moment.FIRST_SOUND)
                    milliseconds += len(chunk.pcm) / 2 * 1000 / chunk.sample_rate
                    sentence.packets = math.ceil(milliseconds / self._packet_ms)
                    size = chunk.sample_rate * _SLICE_MS // 1000 * 2
                    for start in range(0, len(chunk.pcm), size):
                        await speech.send(
                            PcmChunk(chunk.pcm[start : start + size], chunk.sample_rate)
                        )
                    deadline.renew()
                deadline.pause()
            _refuse("" if milliseconds else NO_SPEECH, engine=synthesizer.name)
        sentence.is_whole = True
        await speech.send(None)

    async def encode(
        self,
        speech: trio.MemoryReceiveChannel[Speech],
        packets: trio.MemorySendChannel[SpeechItem],
    ) -> None:
        """Send each sentence and its packets, then close both channels."""
        sentence: SpokenSentence | None = None
        made = 0
        async with speech, packets:
            async for piece in speech:
                if isinstance(piece, SpokenSentence):
                    if sentence is not None:
                        # It failed half way; what is left of it is not of the next.
                        await self._run_encoding(self._encoder.flush)
                    sentence, made = piece, 0
                    await packets.send(sentence)
                    continue
                if piece is not None:
                    new = await self._run_encoding(
                        self._encoder.encode, piece.pcm, piece.sample_rate
                    )
                else:
                    new = await self._run_encoding(self._encoder.flush)
                made += len(new)
                if piece is None and sentence is not None:
                    sentence.packets, sentence = made, None
                for packet in new:
                    await packets.send(packet)


def _refuse(problem: str, *, engine: str) -> None:
    """Raise `EngineError` for what cannot be played, from a synthesizer that others wrote."""
    if problem:
        raise EngineError(problem, engine=engine, category=EngineErrorCategory.BAD_RESPONSE)
