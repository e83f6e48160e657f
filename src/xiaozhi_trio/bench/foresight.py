"""What a server will notice in speech, found with its own detector and endpointing.

The packets are the same, byte for byte, so that a latency can be counted from the
packet at which the server could first know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.session.listening import Ended, Listening
from xiaozhi_trio.wire.messages import ListenMode

if TYPE_CHECKING:
    from xiaozhi_trio.bench.voice import Question
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.engines.protocols import VoiceActivityDetector


async def packets_to_the_end(
    settings: ListeningSettings, vad: VoiceActivityDetector, question: Question
) -> int | None:
    """With how many packets a server finds the first end of a turn; None: never.

    For words that say nothing about the end, such as "Tell me.": it is found by
    `end_silence_ms` alone.
    """
    heard = await _heard(settings, vad, question, ListenMode.AUTO)
    return next((number for number, has_ended, _ in heard if has_ended), None)


async def packets_to_barge_ins(
    settings: ListeningSettings, vad: VoiceActivityDetector, question: Question
) -> list[int]:
    """With how many packets each utterance but the first has voice enough to interrupt a reply."""
    found, answers = [], False
    heard = await _heard(settings, vad, question, ListenMode.REALTIME)
    for number, has_ended, voiced_ms in heard:
        if has_ended:
            answers = True
        elif answers and voiced_ms >= settings.barge_in_ms:
            found.append(number)
            answers = False
    return found


async def _heard(
    settings: ListeningSettings,
    vad: VoiceActivityDetector,
    question: Question,
    mode: ListenMode,
) -> list[tuple[int, bool, int]]:
    """Each packet's number, whether a turn ends with it, and the voice of the utterance in ms."""
    ear, decoder = Listening(settings), OpusDecoder(LISTENING_RATE)
    ear.attach(vad.open_stream())
    ear.open(mode)
    heard = []
    for number, packet in enumerate(question.packets, start=1):
        noticed = await ear.accept(decoder.decode(packet))
        has_ended = any(isinstance(event, Ended) for event in noticed)
        heard.append((number, has_ended, ear.voiced_ms))
    return heard
