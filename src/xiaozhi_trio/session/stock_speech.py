"""The server's own phrases as speech that is ready: a greeting at once, an apology without engines.

Each is synthesised once per process, when the synthesizer has time, and encoded once for
each format that devices ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from loguru import logger

from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.session.spoken_text import spoken_text
from xiaozhi_trio.session.stage import stage_deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.protocols import PcmChunk, SpeechSynthesizer
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.session.encoding import EncodingRunner
    from xiaozhi_trio.wire.messages import AudioParams

_BUSY_PAUSE_SECONDS: Final = 1.0
_FAILED_PAUSE_SECONDS: Final = 30.0


class StockSpeech:
    """The phrases that were made so far."""

    def __init__(
        self,
        slot: EngineSlot[SpeechSynthesizer],
        run_encoding: EncodingRunner,
        settings: Settings,
    ) -> None:
        self.run_encoding = run_encoding
        self._slot = slot
        self._settings = settings
        self._sound: dict[str, list[PcmChunk]] = {}
        self._packets: dict[tuple[str, int, int], list[bytes]] = {}

    async def prepare(self, phrases: Iterable[str]) -> None:
        """Make them all; returns when that is done, which is never while the engine fails."""
        for phrase in dict.fromkeys(filter(spoken_text, phrases)):
            while phrase not in self._sound:
                if self._slot.is_busy:
                    await trio.sleep(_BUSY_PAUSE_SECONDS)
                    continue
                try:
                    self._sound[phrase] = await self._synthesised(phrase)
                except EngineError as error:
                    logger.bind(engine=error.engine, reason=str(error)).debug("phrase not made yet")
                    await trio.sleep(_FAILED_PAUSE_SECONDS)

    async def _synthesised(self, phrase: str) -> list[PcmChunk]:
        synthesizer = await self._slot.ready()
        with stage_deadline("tts", self._settings.conversation.synthesis_seconds):
            async with synthesizer.synthesize(spoken_text(phrase)) as chunks:
                return [chunk async for chunk in chunks]

    async def packets(self, phrase: str, speech: AudioParams) -> list[bytes]:
        """The phrase in a device's format; empty where it is not made."""
        key = (phrase, speech.sample_rate, speech.frame_duration)
        sound = self._sound.get(phrase)
        if sound and key not in self._packets:
            self._packets[key] = await self.run_encoding(self._encoded, sound, speech)
        return self._packets.get(key, [])

    def _encoded(self, sound: list[PcmChunk], speech: AudioParams) -> list[bytes]:
        audio = self._settings.audio
        encoder = SpeechEncoder(
            speech.sample_rate,
            frame_ms=speech.frame_duration,
            bitrate=audio.bitrate,
            complexity=audio.complexity,
        )
        packets = [
            packet for chunk in sound for packet in encoder.encode(chunk.pcm, chunk.sample_rate)
        ]
        return packets + encoder.flush()
