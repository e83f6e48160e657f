"""From sentences to Opus packets, the next sentence made while one plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loguru import logger

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.session.playout import SpeechItem, SpokenSentence
from xiaozhi_trio.session.spoken_text import display_text, spoken_text
from xiaozhi_trio.session.stage import stage_deadline

if TYPE_CHECKING:
    import trio

    from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
    from xiaozhi_trio.engines.protocols import SpeechSynthesizer
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.encoding import EncodingRunner

_SLICE_SECONDS: Final = 1
"""Speech encoded in one go; a cancelled turn waits for that much encoding (some ms) at most."""
_MAX_FAILURES: Final = 2
"""One sentence may be unpronounceable; two in a row mean that the engine is down."""


class Voice:
    """One turn's synthesizer and encoder."""

    def __init__(
        self,
        slot: EngineSlot[SpeechSynthesizer],
        encoder: SpeechEncoder,
        run_encoding: EncodingRunner,
        *,
        seconds: float,
    ) -> None:
        """`seconds` is the longest wait for each piece of speech."""
        self._slot = slot
        self._encoder = encoder
        self._run_encoding = run_encoding
        self._seconds = seconds

    async def speak(
        self,
        sentences: trio.MemoryReceiveChannel[str],
        speech: trio.MemorySendChannel[SpeechItem],
    ) -> None:
        """Send each sentence and its packets, then close both channels.

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
                    await self._run_encoding(self._encoder.flush)
                else:
                    failures.clear()
                    spoken += 1
        if failures and not spoken:
            raise failures[-1]

    async def _speak_one(
        self,
        sentence: SpokenSentence,
        words: str,
        speech: trio.MemorySendChannel[SpeechItem],
    ) -> None:
        await speech.send(sentence)
        with stage_deadline("tts", self._seconds) as deadline:
            synthesizer = await self._slot.ready()
            async with synthesizer.synthesize(words) as chunks:
                async for chunk in chunks:
                    deadline.pause()
                    size = chunk.sample_rate * 2 * _SLICE_SECONDS
                    for start in range(0, len(chunk.pcm), size):
                        packets = await self._run_encoding(
                            self._encoder.encode, chunk.pcm[start : start + size], chunk.sample_rate
                        )
                        await self._send(packets, sentence, speech)
                    deadline.renew()
                deadline.pause()
        last = await self._run_encoding(self._encoder.flush)
        sentence.is_whole = True
        await self._send(last, sentence, speech)

    async def _send(
        self,
        packets: list[bytes],
        sentence: SpokenSentence,
        speech: trio.MemorySendChannel[SpeechItem],
    ) -> None:
        sentence.packets += len(packets)
        for packet in packets:
            await speech.send(packet)
