"""Speech to the device in real time, and the truth about what was heard of it.

A device plays at its own pace out of a queue of 40 packets and drops what does not
fit (firmware `audio_service.h`), so packets go out one per packet length, at most
`lead_ms` ahead of the loudspeaker.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from xiaozhi_trio.session.script import is_cjk
from xiaozhi_trio.wire.messages import TtsSentenceStart

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from xiaozhi_trio.config.settings import PlayoutSettings
    from xiaozhi_trio.session.outbox import Outbox

_MAX_LEAD_PACKETS: Final = 30
"""Packets, of whatever length, that a device surely holds beside what it is playing."""
_SECONDS_PER_SYLLABLE: Final = 0.2
_SECONDS_PER_LETTER: Final = 0.065
"""Speech of an unhurried voice: five syllables, or some fifteen letters, a second."""


@attrs.define
class SpokenSentence:
    """A sentence on its way; the synthesis counts up `packets` while it is played."""

    text: str
    """As shown on the device."""
    packets: int = 0
    """Opus packets that the speech made of it so far fills."""
    is_whole: bool = False
    """Whether that is all of it."""
    first_packet: int = 0
    """How many packets of the turn were sent before its own."""

    def heard(self, packets: float, *, packet_seconds: float) -> str:
        """The words of it that fit into the first `packets` packets."""
        packets = min(packets, self.packets)
        if packets <= 0:
            return ""
        if self.is_whole and packets == self.packets:
            return self.text
        length = self.packets
        if not self.is_whole:
            length = max(length, math.ceil(_typical_seconds(self.text) / packet_seconds))
        end = int(len(self.text) * packets / length)
        return self.text[: _word_end(self.text, end)].rstrip()


def _typical_seconds(text: str) -> float:
    """How long a text takes to say, where its speech is not made yet."""
    return sum(
        _SECONDS_PER_SYLLABLE if is_cjk(character) else _SECONDS_PER_LETTER for character in text
    )


def _word_end(text: str, end: int) -> int:
    """The last place at or before `end` that does not cut a spaced word in two."""
    while 0 < end < len(text) and _is_word(text[end - 1]) and _is_word(text[end]):
        end -= 1
    return end


def _is_word(character: str) -> bool:
    return character.isalnum() and character.isascii()


SpeechItem: TypeAlias = SpokenSentence | bytes
"""A sentence, followed by its Opus packets."""


class Playout:
    """Sends one turn's speech."""

    def __init__(
        self, outbox: Outbox, turn: int, *, packet_ms: int, settings: PlayoutSettings
    ) -> None:
        self._outbox = outbox
        self._turn = turn
        self._packet_seconds = packet_ms / 1000
        lead_packets = min(max(settings.lead_ms // packet_ms, 1), _MAX_LEAD_PACKETS)
        self._lead_seconds = lead_packets * self._packet_seconds
        self._settings = settings
        self._sentences: list[SpokenSentence] = []
        self._sent = 0
        self._played_until = trio.current_time() + settings.start_gap_ms / 1000
        """When the loudspeaker will have played all that was sent."""
        self._not_before = self._played_until
        self.first_packet_at: float | None = None

    async def play(self, speech: AsyncIterable[SpeechItem]) -> None:
        """Send everything in `speech` on time; returns when the last packet is on its way."""
        subtitle: SpokenSentence | None = None
        async for item in speech:
            if isinstance(item, SpokenSentence):
                subtitle = item
                continue
            await self._wait_for_room()
            if subtitle is not None:
                self._begin(subtitle)
                subtitle = None
            await self._outbox.send_audio(item, turn=self._turn)
            self._sent += 1
            now = trio.current_time()
            if self.first_packet_at is None:
                self.first_packet_at = now
            self._played_until = max(self._played_until, now) + self._packet_seconds

    async def _wait_for_room(self) -> None:
        due = self._played_until + self._packet_seconds - self._lead_seconds
        await trio.sleep_until(max(due, self._not_before))

    def _begin(self, sentence: SpokenSentence) -> None:
        sentence.first_packet = self._sent
        self._sentences.append(sentence)
        self._outbox.post(TtsSentenceStart(sentence.text), turn=self._turn)

    async def drained(self) -> None:
        """Wait until the device has played what was sent, and a little longer.

        Some clients throw away what they still hold at `tts stop` (py-xiaozhi, the
        browser page), and none can tell us when they are done.
        """
        if self._sent:
            await trio.sleep_until(self._played_until + self._settings.end_margin_ms / 1000)

    def heard(self, *, dropped: int = 0) -> str:
        """The words that have left the loudspeaker by now.

        `dropped` packets were still in the outbox, and never left it.
        """
        ahead = max(0.0, self._played_until - trio.current_time()) / self._packet_seconds
        played = self._sent - max(ahead, dropped)
        words = [
            sentence.heard(played - sentence.first_packet, packet_seconds=self._packet_seconds)
            for sentence in self._sentences
        ]
        return _joined([part for part in words if part])


def _joined(sentences: list[str]) -> str:
    """Sentences in a row, with a space between those that are written with spaces."""
    text = ""
    for sentence in sentences:
        gap = " " if text and text[-1].isascii() and sentence[0].isascii() else ""
        text += gap + sentence
    return text
