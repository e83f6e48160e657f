"""From Opus packets to utterances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio
from loguru import logger

from xiaozhi_trio.audio.echo import EchoCanceller
from xiaozhi_trio.audio.opus import OpusDecoder, OpusError
from xiaozhi_trio.engines.detection import CheckedDetection
from xiaozhi_trio.engines.edge import EngineBug
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.session.encoding import EncodingRunner
from xiaozhi_trio.session.listening import (
    BYTES_PER_MS,
    Forgotten,
    Heard,
    Listening,
    Resumed,
    Utterance,
)

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.engines.protocols import VoiceActivityDetector
    from xiaozhi_trio.engines.slots import EngineSlot
    from xiaozhi_trio.wire.messages import ListenMode

_MAX_GAP_SECONDS: Final = 2.0
"""Silence is counted in audio; this is for a client that stops to send in mid-utterance."""


@attrs.frozen
class Echo:
    """What takes our own speech out of a microphone, and where that is worked at."""

    canceller: EchoCanceller
    run: EncodingRunner

    async def taken_out(self, pcm: bytes, timestamp: int) -> bytes:
        """What is left of audio that was recorded while the packet of this timestamp played."""
        if not self.canceller.is_needed(timestamp):
            return pcm
        return await self.run(self.canceller.cancel, pcm, timestamp)


class Microphone:
    """A device's microphone as it arrives: decoded, then listened to."""

    def __init__(
        self,
        settings: ListeningSettings,
        detector: EngineSlot[VoiceActivityDetector],
        *,
        packet_ms: int,
        echo: Echo | None = None,
    ) -> None:
        """`packet_ms` is what an empty packet stands for; others tell their own length.

        `echo` is for a device that leaves echo cancellation to us and tells what it plays.
        """
        self._listening = Listening(settings)
        self._detector = detector
        self._decoder: OpusDecoder | None = None
        self._silence = bytes(BYTES_PER_MS * min(max(packet_ms, 0), 120))
        self._echo = echo
        self._detector_fails = False
        self._waiting_since = trio.current_time()

    @property
    def is_open(self) -> bool:
        """See `Listening.is_open`."""
        return self._listening.is_open

    @property
    def voiced_ms(self) -> int:
        """Voice in the utterance so far."""
        return self._listening.voiced_ms

    @property
    def heard_ms(self) -> int:
        """See `Listening.heard_ms`."""
        return self._listening.heard_ms

    @property
    def utterance_number(self) -> int:
        """See `Listening.utterance_number`."""
        return self._listening.utterance_number

    def utterance_since(self, start: int) -> bytes:
        """See `Listening.utterance_since`."""
        return self._listening.utterance_since(start)

    @property
    def is_free_of_echo(self) -> bool:
        """Our own speech is being taken out of what it hears."""
        return self._echo is not None and self._echo.canceller.is_trusted

    @property
    def gap_deadline(self) -> float:
        """Trio time at which voice ends for want of packets; infinite where none is heard."""
        if not self._listening.hears_voice:
            return float("inf")
        return self._waiting_since + _MAX_GAP_SECONDS

    def open(self, mode: ListenMode) -> None:
        """See `Listening.open`."""
        self._listening.open(mode)

    def close(self) -> Utterance | None:
        """See `Listening.close`."""
        return self._listening.close()

    def end_early(self) -> Utterance | None:
        """End the utterance in progress and go on listening."""
        return self._listening.end_early()

    def discard(self) -> None:
        """See `Listening.discard`."""
        self._listening.discard()

    def forget_pre_roll(self) -> None:
        """See `Listening.forget_pre_roll`."""
        self._listening.forget_pre_roll()

    def called(self) -> None:
        """See `Listening.called`."""
        self._listening.called()

    def put_back(self, utterance: Utterance) -> None:
        """See `Listening.put_back`."""
        self._listening.put_back(utterance)

    def be_patient(self, silence_ms: float) -> None:
        """See `Listening.be_patient`."""
        self._listening.be_patient(silence_ms)

    def _decode(self, packet: bytes) -> bytes:
        if self._decoder is None:
            # A decoder takes 22 KB, which a device that does not speak need not have.
            self._decoder = OpusDecoder(LISTENING_RATE)
        return self._decoder.decode(packet)

    async def hear(self, packet: bytes, timestamp: int = 0) -> list[Heard]:
        """Take one packet and its stamp; gives what was noticed in it, in order.

        An empty packet is silence, a corrupt one is dropped. Until the detector is
        loaded, audio is kept as it is.
        """
        try:
            return await self._listen_to(packet, timestamp)
        finally:
            # Not earlier: packets that queue behind a slow detector are not missing.
            self._waiting_since = trio.current_time()

    async def _listen_to(self, packet: bytes, timestamp: int) -> list[Heard]:
        try:
            pcm = self._decode(packet) if packet else self._silence
        except OpusError as error:
            logger.bind(size=len(packet), problem=str(error)).debug("opus packet dropped")
            return []
        if self._echo is not None:
            was_learning = self._echo.canceller.is_learning
            pcm = await self._echo.taken_out(pcm, timestamp)
            if was_learning and self.is_free_of_echo and self._listening.hears_voice:
                # That may have been our own speech.
                self._listening.discard()
                return [Resumed(), Forgotten()]
        self._attach_detector()
        try:
            noticed = await self._listening.accept(pcm)
        except EngineError as error:
            self._detection_failed(error)
            # Nobody can tell any more whether it goes on, and somebody may wait for that.
            return self._listening.forget_beginning()
        if self._listening.has_detector:
            self._detector_fails = False
        return noticed

    def _attach_detector(self) -> None:
        """Give the ear its detector as soon as there is one; a button is served without."""
        detector = self._detector.ready_nowait()
        if detector is None or self._listening.has_detector:
            return
        try:
            self._listening.attach(CheckedDetection(detector))
        except EngineError as error:
            self._detection_failed(error)

    def _detection_failed(self, error: EngineError) -> None:
        if not self._detector_fails:
            logger.bind(engine=error.engine, reason=str(error)).opt(
                exception=error if isinstance(error, EngineBug) else None
            ).error("voice detection failed")
        self._detector_fails = True
