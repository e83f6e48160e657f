"""Endpointing: from a microphone's PCM to the utterances spoken into it.

Time is audio time, counted in samples: bursts, gaps and a slow network do not end
a turn early or late.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.session.noise_floor import NoiseFloor, level_db
from xiaozhi_trio.wire.messages import ListenMode

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ListeningSettings
    from xiaozhi_trio.engines.protocols import VoiceActivityStream

BYTES_PER_MS: Final = LISTENING_RATE * 2 // 1000

_FORGET_VOICE_MS: Final = 320
"""Silence after which scattered bits of voice no longer add up to a beginning."""
_RESUMED_VOICE_MS: Final = 64
"""Voice after a pause from which somebody goes on speaking; less is a click or a breath."""
_CALL_MS: Final = 200
"""Sound from before the report of a wake word from which two of its syllables may be in it."""


@attrs.frozen
class Utterance:
    """What somebody said in one go."""

    pcm: bytes
    """At `LISTENING_RATE`, from `pre_roll_ms` before the first voice to the end."""
    voiced_ms: int
    """How much of it is voice."""
    cut: bool = False
    """It was ended by something else than silence."""
    number: int = 0
    """Tells apart what one microphone heard; 0 where it was put together of several."""
    begins_with_call: bool = False
    """Its first sound came before the wake word was reported, so that it may hold its end."""


@attrs.frozen
class Began:
    """Somebody speaks."""


@attrs.frozen
class Paused:
    """The speaker is silent for a moment, which may become the end."""

    so_far: Utterance


@attrs.frozen
class TentativelyEnded:
    """The speaker is silent for so long that it probably is the end."""

    so_far: Utterance


@attrs.frozen
class Resumed:
    """The speaker goes on after a pause."""


@attrs.frozen
class Ended:
    """The end, for good."""

    utterance: Utterance


@attrs.frozen
class Forgotten:
    """A sound that did not become speech."""


Heard: TypeAlias = Began | Paused | TentativelyEnded | Resumed | Ended | Forgotten
"""What the ear noticed."""


class _PreRoll:
    """The last stretch of audio before anybody spoke."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def append(self, pcm: bytes, keep_bytes: int) -> None:
        # Chunks without audio would pile up: no amount of them exceeds a bound in bytes.
        if not pcm:
            return
        self._chunks.append(pcm)
        self._size += len(pcm)
        while self._chunks and self._size - len(self._chunks[0]) >= keep_bytes:
            self._size -= len(self._chunks.popleft())

    def take(self) -> bytes:
        pcm = b"".join(self._chunks)
        self.clear()
        return pcm

    def clear(self) -> None:
        self._chunks.clear()
        self._size = 0


class Listening:
    """One device's ear. Not for two tasks at a time: audio arrives in order."""

    def __init__(self, settings: ListeningSettings) -> None:
        self._settings = settings
        self._detector: VoiceActivityStream | None = None
        self._noise = NoiseFloor()
        self._rest = b""
        self._mode: ListenMode | None = None
        self._was_opened = False
        self._pre_roll = _PreRoll()
        self._utterance: bytearray | None = None
        self._number = 0
        self._heard_bytes = 0
        self._called_at = 0
        self._begins_with_call = False
        self._in_voice = False
        self._voiced_ms = 0.0
        self._silent_ms = 0.0
        self._pauses_noticed = 0
        self._resumed_ms = 0.0
        self._patience_ms: float | None = None

    @property
    def has_detector(self) -> bool:
        """Whether voice can be told from noise yet."""
        return self._detector is not None

    @property
    def utterance_number(self) -> int:
        """Number of the utterance in progress; 0 without one. What is put back makes it another."""
        return 0 if self._utterance is None else self._number

    def utterance_since(self, start: int) -> bytes:
        """The utterance in progress from byte `start` on."""
        return bytes(self._utterance[start:]) if self._utterance is not None else b""

    @property
    def is_open(self) -> bool:
        """Whether what comes may become an utterance."""
        return self._mode is not None

    @property
    def hears_voice(self) -> bool:
        """Somebody speaks, or it sounds like it so far, and the end is for us to find."""
        return self._mode is not ListenMode.MANUAL and (
            self._utterance is not None or self._voiced_ms > 0
        )

    @property
    def voiced_ms(self) -> int:
        """Voice in the utterance so far; what barge-in is decided by."""
        return int(self._voiced_ms)

    @property
    def heard_ms(self) -> int:
        """How much audio was taken so far: the ear's own clock."""
        return self._heard_bytes // BYTES_PER_MS

    def attach(self, detector: VoiceActivityStream) -> None:
        """Give the ear its voice detector, which may come later than the first audio.

        What an utterance holds by then counts as voice, for nobody judged it.
        """
        self._detector = detector
        if self._utterance is not None:
            self._voiced_ms += len(self._utterance) / BYTES_PER_MS

    def open(self, mode: ListenMode) -> None:
        """Begin to listen; an utterance in progress is discarded.

        Audio from before the first opening stays as pre-roll: somebody who goes on
        speaking right after the wake word is heard from the first syllable.
        """
        if self._was_opened or mode is ListenMode.MANUAL:
            self._pre_roll.clear()
        self._was_opened = True
        self._mode = mode
        self.discard()
        if mode is ListenMode.MANUAL:
            self._begin(b"")

    def close(self) -> Utterance | None:
        """Stop listening; gives what was being said, if anything."""
        utterance = self.end_early()
        self._mode = None
        self._pre_roll.clear()
        return utterance

    def end_early(self) -> Utterance | None:
        """The utterance in progress as far as it got, if there is one."""
        return None if self._utterance is None else self._finish(cut=True)

    def discard(self) -> None:
        """Forget what was being said, and go on listening."""
        self._utterance = None
        self._in_voice = False
        self._voiced_ms = 0.0
        self._silent_ms = 0.0
        self._forget_pause()
        self._rest = b""
        if self._detector is not None:
            self._detector.reset()

    def forget_beginning(self) -> list[Heard]:
        """Forget voice that has not become an utterance, if there is any."""
        if self._utterance is not None or not self._voiced_ms:
            return []
        self._voiced_ms = 0.0
        return [Forgotten()]

    def forget_pre_roll(self) -> None:
        """What was heard before was answered, such as a wake word."""
        self._pre_roll.clear()

    def called(self) -> None:
        """A wake word was reported: what was heard up to now may be the wake word."""
        self._called_at = self._heard_bytes
        if self._utterance is not None:
            self._begins_with_call = True

    def _begin(self, pcm: bytes) -> None:
        self._utterance = bytearray(pcm)
        self._number += 1
        overlap = self._called_at - (self._heard_bytes - len(pcm))
        self._begins_with_call = overlap >= _CALL_MS * BYTES_PER_MS

    def put_back(self, utterance: Utterance) -> None:
        """What is being said now goes on from `utterance`, which ended too early."""
        now = self._pre_roll.take() if self._utterance is None else self._utterance
        self._begin(utterance.pcm + now)
        self._begins_with_call = utterance.begins_with_call
        self._voiced_ms += utterance.voiced_ms

    def be_patient(self, silence_ms: float) -> None:
        """Take this much silence for the end in place of `end_silence_ms`, until speech resumes."""
        self._patience_ms = silence_ms

    async def accept(self, pcm: bytes) -> list[Heard]:
        """Take the next audio; gives what was noticed in it, in order.

        Raises `EngineError` where the detector fails.
        """
        if self._mode is None and self._was_opened:
            return []
        self._heard_bytes += len(pcm)
        if self._utterance is None:
            candidate_ms = self._voiced_ms + self._silent_ms if self._voiced_ms else 0.0
            keep = (self._settings.pre_roll_ms + candidate_ms) * BYTES_PER_MS
            self._pre_roll.append(pcm, int(keep))
        elif len(self._utterance) < self._max_bytes:
            self._utterance += pcm
        if self._mode is None or self._detector is None:
            return []
        # Before the detector is asked: one that fails must not keep an utterance open.
        if self._mode is not ListenMode.MANUAL and self._is_full:
            return [Ended(self._finish(cut=True))]
        window_ms = self._detector.window_samples * 1000 / LISTENING_RATE
        noticed: list[Heard] = []
        levels = self._levels(pcm, self._detector.window_samples * 2)
        for probability, level in zip(await self._detector.accept(pcm), levels, strict=False):
            noticed += self._window(probability, level, window_ms)
            if noticed and isinstance(noticed[-1], Ended):
                break
        return noticed

    def _levels(self, pcm: bytes, window_bytes: int) -> list[float]:
        """How loud the windows are that the detector will judge now, in dB full scale."""
        pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % window_bytes
        self._rest = pcm[whole:]
        return [
            level_db(pcm[start : start + window_bytes]) for start in range(0, whole, window_bytes)
        ]

    @property
    def _max_bytes(self) -> int:
        return int(self._settings.max_utterance_seconds * 1000) * BYTES_PER_MS

    @property
    def _is_full(self) -> bool:
        return self._utterance is not None and len(self._utterance) >= self._max_bytes

    def _window(self, probability: float, level: float, window_ms: float) -> list[Heard]:
        """Judge one window by its voice probability and its level in dB full scale."""
        settings = self._settings
        threshold = settings.silence_threshold if self._in_voice else settings.voice_threshold
        if settings.adaptive_threshold:
            self._noise.add(level, window_ms)
            # Who holds a button down speaks; a room without pauses cannot be told from them.
            if not self._in_voice and self._mode is not ListenMode.MANUAL:
                threshold = self._noise.threshold(threshold, level)
        self._in_voice = probability >= threshold
        if not self._in_voice:
            self._silent_ms += window_ms
            return self._silence()
        self._voiced_ms += window_ms
        self._silent_ms = 0.0
        if self._utterance is None:
            if self._voiced_ms < settings.min_voice_ms:
                return []
            self._begin(self._pre_roll.take())
            return [Began()]
        if self._pauses_noticed:
            self._resumed_ms += window_ms
            if self._resumed_ms >= _RESUMED_VOICE_MS:
                self._forget_pause()
                return [Resumed()]
        return []

    def _silence(self) -> list[Heard]:
        if self._utterance is None:
            return self.forget_beginning() if self._silent_ms >= _FORGET_VOICE_MS else []
        if self._voiced_ms < self._settings.min_voice_ms:
            return []
        if self._mode is not ListenMode.MANUAL and self._silent_ms >= self._end_ms:
            return [Ended(self._finish(cut=False))]
        tentative_ms = min(self._settings.tentative_silence_ms, self._settings.end_silence_ms / 2)
        noticed: list[Heard] = []
        for event, silence_ms in ((Paused, tentative_ms / 2), (TentativelyEnded, tentative_ms))[
            self._pauses_noticed :
        ]:
            if self._silent_ms >= silence_ms:
                self._pauses_noticed += 1
                noticed.append(event(self._so_far(cut=False)))
        return noticed

    @property
    def _end_ms(self) -> float:
        return self._settings.end_silence_ms if self._patience_ms is None else self._patience_ms

    def _forget_pause(self) -> None:
        self._pauses_noticed = 0
        self._resumed_ms = 0.0
        self._patience_ms = None

    def _so_far(self, *, cut: bool) -> Utterance:
        pcm = bytes(self._utterance or b"")[: self._max_bytes]
        # Without a detector nobody can tell; the recogniser will.
        voiced_ms = self.voiced_ms if self._detector else len(pcm) // BYTES_PER_MS
        return Utterance(pcm, voiced_ms, cut, self._number, self._begins_with_call)

    def _finish(self, *, cut: bool) -> Utterance:
        utterance = self._so_far(cut=cut)
        self.discard()
        return utterance
