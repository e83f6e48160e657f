"""Speech to the device in real time, and the truth about what was heard of it.

A device plays at its own pace out of a queue of 40 packets and drops what does not
fit (firmware `audio_service.h`), so packets go out one per packet length, at most
`lead_ms` ahead of the loudspeaker.
"""

from __future__ import annotations

import math
from itertools import zip_longest
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


@attrs.define(eq=False)
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
    already_heard: float = 0.0
    """How many of its packets were heard before it began anew after an interruption."""

    def heard(self, packets: float, *, packet_seconds: float) -> str:
        """The words of it that fit into the first `packets` packets."""
        packets = min(max(packets, self.already_heard), self.packets)
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
    """Sends one turn's speech; may be suspended, and go on where a sentence began."""

    def __init__(
        self, outbox: Outbox, turn: int, *, packet_ms: int, settings: PlayoutSettings
    ) -> None:
        self._outbox = outbox
        self._turn = turn
        self._packet_seconds = packet_ms / 1000
        lead_packets = min(max(settings.lead_ms // packet_ms, 1), _MAX_LEAD_PACKETS)
        self._lead_seconds = lead_packets * self._packet_seconds
        self._settings = settings
        self._items: list[SpeechItem] = []
        """The sentences that are being heard or waiting, each followed by its packets."""
        self._next = 0
        """Index of the next item to be sent."""
        self._sentences: list[SpokenSentence] = []
        """Those that were begun."""
        self._sent = 0
        self._going = trio.Event()
        self._going.set()
        self._is_complete = False
        self.first_packet_at: float | None = None
        self._wait_before_audio()

    def _wait_before_audio(self) -> None:
        self._played_until = trio.current_time() + self._settings.start_gap_ms / 1000
        """When the loudspeaker will have played all that was sent."""
        self._not_before = self._played_until

    async def play(self, speech: AsyncIterable[SpeechItem]) -> None:
        """Send everything in `speech` on time; returns when the last packet is on its way."""
        async for item in speech:
            if isinstance(item, SpokenSentence):
                self._forget_what_was_heard()
            self._items.append(item)
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Send what there is. Begins anew wherever `suspend` has set it back meanwhile."""
        while self._next < len(self._items):
            await self._going.wait()
            going, place = self._going, self._next
            item = self._items[place]
            if isinstance(item, bytes):
                await self._wait_for_room()
                if self._going is not going:
                    continue
                self._begin_sentence_before(place)
                await self._outbox.send_audio(item, turn=self._turn)
                if self._going is not going:
                    continue
                self._account_for_packet()
            self._next = place + 1

    async def _wait_for_room(self) -> None:
        due = self._played_until + self._packet_seconds - self._lead_seconds
        await trio.sleep_until(max(due, self._not_before))

    def _begin_sentence_before(self, place: int) -> None:
        """Show the sentence, if it is one, whose first packet is at `place`."""
        sentence = self._items[place - 1] if place else None
        if not isinstance(sentence, SpokenSentence):
            return
        self._outbox.post(TtsSentenceStart(sentence.text), turn=self._turn)
        if sentence in self._sentences:
            return
        sentence.first_packet = self._sent
        self._sentences.append(sentence)

    def _forget_what_was_heard(self) -> None:
        """Let go of the packets that no resumption can need any more."""
        cut = self._cut_sentence(self._played(dropped=self._outbox.unsent(self._turn)))
        keep_from = self._next if cut is None else self._items.index(cut)
        del self._items[:keep_from]
        self._next -= keep_from

    def _account_for_packet(self) -> None:
        self._sent += 1
        now = trio.current_time()
        if self.first_packet_at is None:
            self.first_packet_at = now
        self._played_until = max(self._played_until, now) + self._packet_seconds

    def suspend(self, *, dropped: int) -> None:
        """Send nothing more; `dropped` packets were taken back from the outbox.

        The speech that comes meanwhile waits, and so does who makes it. What the device
        holds is heard: nothing but a wake word makes it throw that away.
        """
        played = self._sent - dropped
        cut = self._cut_sentence(played)
        if cut is not None:
            cut.already_heard = max(cut.already_heard, played - cut.first_packet)
            self._sent = cut.first_packet
            self._next = self._items.index(cut)
        self._played_until = trio.current_time()
        self._going = trio.Event()

    def resume(self, turn: int) -> None:
        """Go on from the beginning of the sentence that was cut, under a new turn number."""
        self._turn = turn
        self._wait_before_audio()
        self._going.set()

    @property
    def has_more(self) -> bool:
        """Something is left to be sent, or may come."""
        return not self._is_complete or self._next < len(self._items)

    def _cut_sentence(self, played: float) -> SpokenSentence | None:
        """The first sentence of those begun that was not heard to its end."""
        for sentence, following in zip_longest(self._sentences, self._sentences[1:]):
            if following is not None:
                end: float = following.first_packet
            else:
                end = sentence.first_packet + sentence.packets if sentence.is_whole else math.inf
            if played < end:
                return sentence
        return None

    async def drained(self) -> None:
        """Wait until the device has played what was sent, and a little longer.

        Some clients throw away what they still hold at `tts stop` (py-xiaozhi, the
        browser page), and none can tell us when they are done.
        """
        self._is_complete = True
        while True:
            await self._going.wait()
            await self._catch_up()
            going = self._going
            await self._wait_for_network()
            if self._sent and self._going is going:
                await trio.sleep_until(self._played_until + self._settings.end_margin_ms / 1000)
            if self._going is going:
                return

    async def _wait_for_network(self) -> None:
        """Where the network is slow, what it held up is still to be played when it arrives."""
        held_up = await self._outbox.sent(self._turn)
        arrived = trio.current_time() + held_up * self._packet_seconds
        self._played_until = max(self._played_until, arrived)

    def heard(self, *, dropped: int = 0, plays_on: bool = False) -> str:
        """The words that have left the loudspeaker by now.

        `dropped` packets were still in the outbox, and never left it; `plays_on` is for a
        device that also plays what it holds.
        """
        played = self._sent - dropped if plays_on else self._played(dropped=dropped)
        words = [
            sentence.heard(played - sentence.first_packet, packet_seconds=self._packet_seconds)
            for sentence in self._sentences
        ]
        return _joined([part for part in words if part])

    def saying(self, *, seconds: float) -> str:
        """What could be heard within the last `seconds`, for comparison with what was."""
        since = self._played(dropped=0) - seconds / self._packet_seconds
        return " ".join(
            sentence.text
            for sentence in self._sentences
            if since < sentence.first_packet + sentence.packets
        )

    def _played(self, *, dropped: int) -> float:
        ahead = max(0.0, self._played_until - trio.current_time()) / self._packet_seconds
        return self._sent - max(ahead, dropped)


def _joined(sentences: list[str]) -> str:
    """Sentences in a row, with a space between those that are written with spaces."""
    text = ""
    for sentence in sentences:
        gap = " " if text and text[-1].isascii() and sentence[0].isascii() else ""
        text += gap + sentence
    return text
