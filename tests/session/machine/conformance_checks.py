"""Items 57 to 81 of the conformance list, as what must hold of any transcript.

Each check sees every entry once, with the scene as it was before it, and is told when a
step has come to rest. Item 38 (one hello) is among them; 52 to 54 are the rule that asks
aloud, and 55 is part of 61.

Two items have no check of their own, because they say that something does not matter: 62
(the session id of a client's message) and 78 (the reason of an abort). Both are drawn anew
for each message, and all other checks must hold whichever they are. What cannot be seen in
a transcript is not checked: that an ignored message is logged (63), that memory other than
the outbox and the speech made ahead is bounded (74), and the 100 ms of 76, for here it is
silent at once. While the network stalls, the device's clock says nothing about the
server's: 68 is then held to the packets a device can keep, 69 and 70 are not judged, and 81
not for the rest of the session.
"""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np
from transcript import (
    Dialogue,
    Entry,
    HungUp,
    Received,
    Recognition,
    Saying,
    Sent,
    Sound,
    Step,
    Trouble,
    Understanding,
)

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.wire.emotion import EMOJI

if TYPE_CHECKING:
    from scene import Scene

    from xiaozhi_trio.testing import Event

SLACK_MS: Final = 120.0
"""Two packets, which may have passed a message of the other direction: too few for a word."""
INSTANT: Final = 1e-6
EMOTIONS: Final = frozenset(
    "neutral happy laughing funny sad angry crying loving embarrassed surprised shocked thinking "
    "winking cool relaxed delicious kissy confident sleepy silly confused".split()
)
MARKUP: Final = ("**", "__", "`", "](", "##", "<")
LONGEST_SUBTITLE: Final = 500
SHORTEST_END_MS: Final = 300.0
"""Less than `complete_silence_ms`, by a window of the detector and a packet."""
GAP_SECONDS: Final = 2.0
"""Without a packet, after which nobody waits for the rest of an utterance."""
LONGEST_SILENCE: Final = 30.0
"""Seconds; all engines of a turn may run into their deadlines, one after the other."""
LONGEST_SPEECHLESS: Final = 30.0
"""Seconds; an engine may run into its deadline, be tried again, and fail."""
OUTBOX_LIMIT: Final = 256 + 8
SPOKEN_AHEAD_MS: Final = 12_000
MS_PER_CHARACTER: Final = 60
"""Of the scripted synthesizer's speech."""


def milliseconds(pcm: bytes) -> float:
    return len(pcm) / 2 * 1000 / LISTENING_RATE


def loud_windows(pcm: bytes) -> np.ndarray:
    """For each 32 ms whether it is loud."""
    samples = np.frombuffer(pcm[: len(pcm) - len(pcm) % 1024], np.int16).reshape(-1, 512)
    return np.abs(samples.astype(np.int32)).mean(axis=1) > 500


class Check:
    """One item of the list."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def see(self, entry: Entry) -> None:
        """Look at one entry."""

    def settle(self, step: Step) -> None:
        """Look at a step after which nothing more happens before time passes."""


class C038HelloIsSaidOnce(Check):
    hellos = 0

    def see(self, entry: Entry) -> None:
        if isinstance(entry, Received) and entry.event.kind == "hello":
            self.hellos += 1
            assert self.hellos == 1
            assert not self.scene.greeted


class _AudioIsOfThisTurn(Check):
    """No utterance is longer than the audio that may be in it.

    It may be recognised several times, for what seems to be its end may be none.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.credit = 0.0
        self.earlier: list[float] = []
        """Of openings in the same step, whose utterance may not have arrived yet."""
        self.was_opened = False
        self.crosses = False
        """What was said last may have passed a `tts stop`, and be taken for its answer."""
        self.in_work = 0.0
        """Length of what is being recognised; who goes on speaking meanwhile adds to it."""

    def reopen(self, mode: str) -> None:
        if mode == self.scene.mode == "realtime" and (self.scene.suspended or self.scene.speaking):
            # Some clients answer every `tts stop` with it; whose voice caused that speaks on.
            return
        self.crosses = mode == self.scene.mode == "realtime"
        self.earlier.append(self.credit)
        # Somebody who goes on speaking after the wake word is heard from the first syllable.
        self.credit = 0.0 if self.was_opened else self.scene.settings.listening.pre_roll_ms
        self.credit += self.in_work
        self.was_opened = True

    def judge(self, recognition: Recognition) -> None:
        self.in_work = milliseconds(recognition.pcm)
        best = max([self.credit, *self.earlier])
        assert self.in_work <= best + SLACK_MS, f"{self.in_work} ms heard, {best} ms to hear"

    def settle(self, step: Step) -> None:
        if self.crosses and "tts stop" in step.kinds:
            self.credit += max(self.earlier, default=0.0)
        self.earlier.clear()
        self.crosses = False
        if not step.recognising:
            self.in_work = 0.0


class C057ListenStartDiscardsOldAudio(_AudioIsOfThisTurn):
    def see(self, entry: Entry) -> None:
        match entry:
            case Sent(kind="listen", detail=mode):
                self.reopen(mode)
            case Sent(kind="audio", ms=ms):
                self.credit += ms
            case Recognition():
                self.judge(entry)


class C058StrayAudioIsIgnored(_AudioIsOfThisTurn):
    """After `listen stop`, after `abort`, and while the server speaks."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.open = False
        self.closed = False
        """In this step."""
        self.hushed = False
        """The device has interrupted the speech in progress, or may have."""
        self.reopens = False
        """In auto mode the ear opens by itself after a turn that was not aborted."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Sent(kind="listen", detail=mode):
                self.reopen(mode)
                self.open, self.closed = True, False
                self.hushed = self.hushed or mode == "manual"
            case Sent(kind="abort"):
                self.reopens = False
                if self.scene.mode != "realtime":
                    self.close()
            case Sent(kind="stop"):
                self.close()
            case Sent(kind="detect"):
                self.reopens = True
            case Sent(kind="audio", ms=ms):
                # The voice may have interrupted it; `tts stop` is on its way then.
                self.hushed = self.hushed or self.scene.hears_while_speaking
                if self.open and (not self.scene.speaking or self.hushed):
                    self.credit += ms
            case Recognition():
                self.judge(entry)
                self.reopens = True
            case Received(event=event) if event.kind == "tts start":
                self.hushed = False
            case Understanding(text="") | Received(event=_) if self._ends_a_turn(entry):
                self.open = True

    def close(self) -> None:
        self.open, self.closed = False, True

    def _ends_a_turn(self, entry: Entry) -> bool:
        if isinstance(entry, Received) and entry.event.kind != "tts stop":
            return False
        return self.scene.mode == "auto" and self.reopens

    def settle(self, step: Step) -> None:
        super().settle(step)
        if self.closed:
            self.credit = self.in_work
        self.closed = False


class C059NothingSaidIsNotAnswered(Check):
    words = 0
    """Texts that may still be brought before the language model."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Recognition(pcm=pcm):
                assert loud_windows(pcm).sum() * 32 >= 96
            case Understanding(text=text) if text:
                self.words += 1
            case Sent(kind="detect"):
                self.words += 1
            case Dialogue():
                self.words -= 1
                assert self.words >= 0

    def settle(self, step: Step) -> None:
        if step.is_only("stop") and not step.network_stalled and not self.scene.over:
            works = step.recognising or step.generating or self.scene.speaking
            told = {"tts start", "tts stop"} & set(step.kinds)
            assert works or step.recognitions or told, "the device waits"


class C060SilenceIsCountedInAudio(Check):
    """What is spoken ends by silence in the audio; by time only where no packet comes."""

    over = False
    """Since the microphone was opened, or something was understood."""
    typed = 0
    silent_ms = 0.0
    spoken_ms = 0.0
    heard_at = -1.0

    def see(self, entry: Entry) -> None:
        match entry:
            case Sent(kind="listen"):
                self.spoken_ms = 0.0
            case Sent(kind="stop"):
                self.over = True
            case Sent(kind="detect"):
                self.typed += 1
            case Sent(at, "audio", detail, ms):
                self.silent_ms = 0.0 if detail == "voice" else self.silent_ms + ms
                self.spoken_ms += ms
                full = self.scene.settings.listening.max_utterance_seconds * 1000
                self.over = self.over or self.silent_ms >= SHORTEST_END_MS
                self.over = self.over or self.spoken_ms >= full - SLACK_MS
                self.over = self.over or at - self.heard_at >= GAP_SECONDS - INSTANT
                if detail != "strange":
                    self.heard_at = at
            case Received(at, event) if event.kind == "stt":
                late = at - self.heard_at >= GAP_SECONDS - INSTANT
                assert self.typed or self.over or late, "the speaker was cut off"
                self.over = False
                self.silent_ms = self.spoken_ms = 0.0

    def settle(self, step: Step) -> None:
        if not step.network_stalled:
            self.typed = 0


class C061TextIsAnsweredAtOnce(Check):
    """In any mode, with a `listen start` before or behind it (55, 61)."""

    def settle(self, step: Step) -> None:
        sent = [
            each
            for each in step.sent
            if each.kind not in {"nonsense", "answer"} and each.detail not in {"auto", "realtime"}
        ]
        if not sent or sent[-1].kind != "detect" or step.network_stalled or self.scene.over:
            return
        understood = [event.body["text"] for event in step.received if event.kind == "stt"]
        assert sent[-1].detail in understood


class C063MalformedMessagesAreIgnored(Check):
    nonsense = "message"

    def settle(self, step: Step) -> None:
        if not step.is_instant or not step.sent or step.network_stalled:
            return
        if all(sent.kind == "nonsense" and sent.detail == self.nonsense for sent in step.sent):
            assert not step.received
            assert not self.scene.over


class C064InvalidJsonIsIgnored(C063MalformedMessagesAreIgnored):
    nonsense = "not JSON"


class C065NothingIsEndless(Check):
    """Speech is cut, and a silent channel is closed: not sooner, and not never."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.conversed_at = self.alive_at = scene.began_at

    def see(self, entry: Entry) -> None:
        settings = self.scene.settings.listening
        match entry:
            case Recognition(pcm=pcm):
                assert milliseconds(pcm) <= settings.max_utterance_seconds * 1000
            case HungUp(at, closing) if closing is not None and closing.reason == "idle":
                assert at - self.conversed_at >= settings.idle_seconds - INSTANT
            case Received(event=event) if event.kind not in {"tts stop", "mcp", "alert"}:
                if not self.scene.stalled:
                    self.conversed_at = entry.at
        self.alive_at = entry.at

    def settle(self, step: Step) -> None:
        longest = self.scene.settings.listening.idle_seconds + LONGEST_SILENCE
        assert self.scene.over or step.now - self.alive_at <= longest


class C066OrderOfAReply(Check):
    """`stt`, `tts start`, `llm`, then each subtitle with its audio, `tts stop`."""

    introduced = False
    """By what was understood, or a recogniser that failed."""
    shown: list[str]
    """`llm` and subtitles since `tts start`; a packet of audio is a subtitle's."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Trouble(stage="asr"):
                self.introduced = True
            case Received(event=event):
                self._see(event)

    def _see(self, event: Event) -> None:
        if event.packet is None:
            assert event.body["session_id"] == "f" * 32
        match event.kind:
            case "stt":
                assert not self.scene.speaking
                self.introduced = True
            case "tts start":
                assert self.introduced or self.scene.suspended
                self.introduced = False
                self.shown = []
            case "llm":
                assert self.scene.speaking
                assert not self.shown
                self.shown.append("llm")
            case "tts sentence_start":
                assert self.scene.speaking
                assert self.shown[-1:] != ["subtitle"]
                self.shown.append("subtitle")
            case "audio":
                assert self.scene.speaking
                assert self.shown[-1:] in (["subtitle"], ["audio"])
                self.shown[-1] = "audio"


class C067StartAndStopAreAPair(Check):
    """No start without its stop, and no stop without a start or a question that asks for one."""

    due = 0
    """Stops that were asked for in this step: by `abort` and `listen stop`."""
    unspoken = False
    """A button was released, and what was said into it may come to nothing."""
    lone = 0
    """Stops without a start in this step."""
    heard_at = 0.0

    def see(self, entry: Entry) -> None:
        match entry:
            case Sent(kind="abort" | "stop" | "hang up" | "drain" | "detect" | "listen"):
                self.due += 1
            case Recognition() if self.scene.mode == "manual":
                self.unspoken = True
            case Received(at, event):
                self.heard_at = at
                if event.kind == "tts start":
                    assert not self.scene.speaking, "a second tts start"
                    self.unspoken = False
                elif event.kind == "tts stop" and not self.scene.speaking:
                    self.lone += 1
            case HungUp():
                assert not self.scene.speaking, "no tts stop at the end"

    def settle(self, step: Step) -> None:
        kinds = {sent.kind for sent in step.sent}
        if step.is_instant and len(step.sent) == 1 and kinds <= {"detect", "listen"}:
            self.due = 0
        if not kinds:
            # Whoever waits for a turn that came to nothing is told later than it asked.
            self.due = 0
        # A start that an abort takes back from a slow network leaves its stop there.
        due = self.due + self.unspoken + step.network_stalled
        assert self.lone <= due, f"{self.lone} tts stop without a start"
        if self.lone > self.due:
            self.unspoken = False
        self.due = self.lone = 0
        if self.scene.speaking:
            assert step.now - self.heard_at <= LONGEST_SPEECHLESS, "no tts stop"


class C068AudioIsPaced(Check):
    def see(self, entry: Entry) -> None:
        if isinstance(entry, Received) and entry.event.kind == "audio":
            ahead = self.scene.played_until(entry.at) - entry.at
            lead = self.scene.settings.playout.lead_ms / 1000
            most = 30 * self.scene.downlink_ms / 1000
            assert ahead <= (most if self.scene.stalled else min(lead, most)) + INSTANT


class C069AudioLeavesRoomAfterStart(Check):
    def see(self, entry: Entry) -> None:
        if isinstance(entry, Received) and entry.event.kind == "audio":
            first = self.scene.packets == 0 and not self.scene.stalled
            assert not first or entry.at - self.scene.opened_at >= 0.050 - INSTANT


class C070StopWaitsForTheLoudspeaker(Check):
    def see(self, entry: Entry) -> None:
        if not isinstance(entry, Received) or entry.event.kind != "tts stop":
            return
        if self.scene.ends_by_itself(entry.at):
            assert entry.at >= self.scene.plays_until - INSTANT


class C071EachPacketHasTheNegotiatedLength(Check):
    decoder: OpusDecoder | None = None

    def see(self, entry: Entry) -> None:
        if not isinstance(entry, Received):
            return
        packet = entry.event.packet
        if entry.event.kind == "hello":
            agreed = entry.event.body["audio_params"]
            assert agreed["frame_duration"] == self.scene.downlink_ms
            self.decoder = OpusDecoder(agreed["sample_rate"])
            self.bytes_per_ms = agreed["sample_rate"] * 2 // 1000
        elif packet is not None:
            assert self.decoder is not None
            assert not packet[0] & 4, "stereo"
            pcm = self.decoder.decode(packet)
            assert len(pcm) == self.scene.downlink_ms * self.bytes_per_ms


class C072FacesAreKnownAndEmojiUnspoken(Check):
    def see(self, entry: Entry) -> None:
        match entry:
            case Received(event=event) if event.kind == "llm":
                assert event.body["emotion"] in EMOTIONS
                assert event.body["text"]
            case Saying(sentence=sentence):
                assert not set(sentence) & set("".join(EMOJI.values()))


class C073SubtitlesAreClean(Check):
    def see(self, entry: Entry) -> None:
        if isinstance(entry, Received) and entry.event.kind == "tts sentence_start":
            text = entry.event.body["text"]
            assert 0 < len(text) <= LONGEST_SUBTITLE
            assert not any(unicodedata.category(each) in {"Cc", "Cs"} for each in text)
            assert not any(mark in text for mark in MARKUP)


class C074SpeechIsBounded(Check):
    ahead_ms = 0.0
    """Of speech that was made and has not come."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Dialogue():
                self.ahead_ms = 0.0
            case Sound(ms=ms):
                self.ahead_ms += ms
                assert self.ahead_ms <= SPOKEN_AHEAD_MS
            case Received(event=event):
                if event.kind == "audio":
                    self.ahead_ms = max(0.0, self.ahead_ms - self.scene.downlink_ms)
                elif event.kind in {"tts start", "tts stop", "stt"}:
                    self.ahead_ms = 0.0

    def settle(self, step: Step) -> None:
        assert step.unsent <= OUTBOX_LIMIT


class C075ErrorsAreTold(Check):
    """In speech, or in an alert that has all it needs to be shown."""

    untold = False

    def see(self, entry: Entry) -> None:
        match entry:
            case Trouble():
                self.untold = True
            case Recognition() | Sent(kind="detect" | "abort"):
                self.untold = False
            case Sent(kind="listen", detail="manual"):
                self.untold = False
            case Saying(sentence=sentence) if sentence.startswith(("Sorry", "抱歉")):
                self.untold = False
            case Received(event=event):
                self._see(entry.at, event)

    def _see(self, at: float, event: Event) -> None:
        if event.kind == "alert":
            assert all(event.body[key] for key in ("status", "message", "emotion"))
            self.untold = False
        elif event.kind == "tts stop" and self.scene.ends_by_itself(at):
            assert not self.untold


class C076AbortSilences(Check):
    """At once, and the engines stop as well, save those that cannot be stopped."""

    allowed = math.inf
    """Packets: after an abort only one that the network had taken already."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Sent(kind="abort"):
                self.allowed = 1 if self.scene.stalled else 0
            case Received(event=event) if event.kind == "tts start":
                self.allowed = math.inf
            case Received(event=event) if event.kind == "audio":
                self.allowed -= 1
                assert self.allowed >= 0

    def settle(self, step: Step) -> None:
        sent = [each.kind for each in step.sent if each.kind not in {"audio", "nonsense"}]
        if sent[-1:] == ["abort"] and step.is_instant and not step.network_stalled:
            assert not self.scene.speaking
            working = step.recognising + step.generating + step.speaking
            assert working <= step.unstoppable


class C077AbortIsAnsweredByOneStop(Check):
    def settle(self, step: Step) -> None:
        if step.is_only("abort") and not step.network_stalled and not self.scene.over:
            assert step.kinds == ["tts stop"]


class C079NothingOfAnAbortedAnswerComesLater(Check):
    """Speech needs a question that came after the abort, and answers none from before it."""

    questions = 0
    """That may still be answered; those of one breath may all have begun to be."""
    since_abort: int | None = None
    """Questions after an abort in this step."""
    dialogues = 0
    aborted = 0
    """How many of them were over by an abort."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Recognition() | Sent(kind="detect"):
                self.questions += 1
                if self.since_abort is not None:
                    self.since_abort += 1
            case Sent(kind="abort"):
                self.since_abort = 0
            case Dialogue():
                self.dialogues += 1
            case Received(event=event) if event.kind == "tts start":
                assert self.questions or self.scene.suspended, "tts start without a question"
                self.questions = max(0, self.questions - 1)
            case Received(event=event) if event.kind == "tts sentence_start":
                text = event.body["text"]
                if text.startswith("Reply") and not self.scene.stalled:
                    assert int(text.split()[1]) > self.aborted, text

    def settle(self, step: Step) -> None:
        if not step.network_stalled:
            newest = 1 if self.since_abort is None else min(self.since_abort, 1)
            self.questions = min(self.questions, newest)
            if self.since_abort == 0:
                self.aborted = self.dialogues
            self.since_abort = None


class C080ThereIsOneStateAndOneEnd(Check):
    """However often and whenever it is aborted; and a session ends once, for one reason."""

    ended = False
    causes: tuple[str, ...] = ()

    def see(self, entry: Entry) -> None:
        if isinstance(entry, Received | HungUp):
            assert not self.ended, "something came after the end"
        match entry:
            case Sent(kind="hang up"):
                self.causes += ("peer_gone",)
            case Sent(kind="drain"):
                self.causes += ("server_shutdown",)
            case Sent(kind="bad hello", detail=reason):
                self.causes += (reason,)
            case HungUp(closing=closing):
                self.ended = True
                assert closing is not None
                timeout = "idle" if self.scene.greeted else "hello_timeout"
                assert closing.reason in (self.causes or (timeout,))

    def settle(self, step: Step) -> None:
        aborts = [sent.kind for sent in step.sent].count("abort")
        if aborts and aborts == len(step.sent) and step.is_instant and not step.network_stalled:
            assert 1 <= len(step.kinds) <= aborts
            assert set(step.kinds) == {"tts stop"}
        # A reply that was interrupted, perhaps for nothing, waits beside a new one.
        assert step.generating <= 2 + step.unstoppable
        assert step.speaking <= 2 + step.unstoppable
        if self.scene.over:
            assert self.ended
            working = step.recognising + step.generating + step.speaking
            assert working <= step.unstoppable


@attrs.define
class Speech:
    """What was shown and sent between a `tts start` and its `tts stop`."""

    sentences: list[str] = attrs.Factory(list)
    packets: list[int] = attrs.Factory(list)
    is_whole: bool = False
    """It ended by itself."""

    def begin(self, sentence: str) -> None:
        """Go on with a sentence, or again with the one that was interrupted."""
        if self.sentences[-1:] != [sentence]:
            self.sentences.append(sentence)
            self.packets.append(0)

    def was_spoken(self, *, downlink_ms: int) -> bool:
        """Whether all of it came: a sentence that fails half way is left there."""
        return bool(self.sentences) and all(
            packets * downlink_ms >= len(sentence) * MS_PER_CHARACTER
            for sentence, packets in zip(self.sentences, self.packets, strict=True)
        )

    def holds(self, words: str, *, downlink_ms: int) -> bool:
        """Whether these may be the words that were heard of it.

        Of a sentence that failed half way nothing may be left, where that was within
        its first word.
        """
        rest = words
        for sentence, packets in zip(self.sentences, self.packets, strict=True):
            length = packets * downlink_ms / MS_PER_CHARACTER
            part = rest[: len(sentence)]
            if sentence.startswith(part) and len(part) <= length + 2:
                rest = rest.removeprefix(part).lstrip()
            elif len(sentence.split()[0] if sentence.isascii() else sentence[0]) <= length:
                return False
        return not rest


class C081HistoryIsWhatWasHeard(Check):
    """Of an interrupted answer no more than was sent; of a whole one all."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.speeches: list[Speech] = []
        self.remembered = 0
        """How many of them were over when the language model was last asked."""
        self.asked = False
        self.answers = False
        """Something was understood, so that the next speech is a new one."""

    def see(self, entry: Entry) -> None:
        match entry:
            case Dialogue(messages=messages):
                self._assert_told([m.role for m in messages], [m.content for m in messages])
                if not self.scene.stalled:
                    self.remembered = len(self.speeches)
                    self.asked = True
            case Trouble(stage="asr"):
                self.answers = True
            case Received(event=event):
                self._see(entry.at, event)

    def _see(self, at: float, event: Event) -> None:
        match event.kind:
            case "stt":
                self.answers = True
            case "tts start":
                if self.answers:
                    self.speeches.append(Speech())
                self.answers = False
            case "tts sentence_start":
                self.speeches[-1].begin(event.body["text"])
            case "audio":
                self.speeches[-1].packets[-1] += 1
            case "tts stop" if self.scene.speaking:
                self.speeches[-1].is_whole = self.scene.ends_by_itself(at)

    def _assert_told(self, roles: list[str], contents: list[str]) -> None:
        assert roles == ["system", *["user", "assistant"] * len(roles)][: len(roles)]
        assert roles[-1] == "user"
        if self.scene.stalled:
            # What is still on its way was heard as far as the server can know.
            return
        told = [words for content in contents[2::2] for words in content.split("\n")]
        for words in told:
            held = (each.holds(words, downlink_ms=self.scene.downlink_ms) for each in self.speeches)
            assert any(held), words
        # Greetings before the first question are not part of a dialogue.
        new = self.speeches[self.remembered :] if self.asked and told else []
        for speech in new:
            if speech.is_whole and speech.was_spoken(downlink_ms=self.scene.downlink_ms):
                joined = "" if speech.sentences[0].startswith(("我", "抱")) else " "
                assert joined.join(speech.sentences) in told


CHECKS: Final = (
    C038HelloIsSaidOnce,
    C057ListenStartDiscardsOldAudio,
    C058StrayAudioIsIgnored,
    C059NothingSaidIsNotAnswered,
    C060SilenceIsCountedInAudio,
    C061TextIsAnsweredAtOnce,
    C063MalformedMessagesAreIgnored,
    C064InvalidJsonIsIgnored,
    C065NothingIsEndless,
    C066OrderOfAReply,
    C067StartAndStopAreAPair,
    C068AudioIsPaced,
    C069AudioLeavesRoomAfterStart,
    C070StopWaitsForTheLoudspeaker,
    C071EachPacketHasTheNegotiatedLength,
    C072FacesAreKnownAndEmojiUnspoken,
    C073SubtitlesAreClean,
    C074SpeechIsBounded,
    C075ErrorsAreTold,
    C076AbortSilences,
    C077AbortIsAnsweredByOneStop,
    C079NothingOfAnAbortedAnswerComesLater,
    C080ThereIsOneStateAndOneEnd,
    C081HistoryIsWhatWasHeard,
)
