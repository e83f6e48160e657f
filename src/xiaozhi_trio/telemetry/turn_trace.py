"""What happened when in one turn: its moments, its stages, and how it ended.

A trace is made when somebody begins to speak, or where the turn begins otherwise, is
handed from the ear to the turn, and is concluded once. It holds no word of what was
said, for what people say at home is private, only lengths.

A moment or a stage costs 1 us, the whole trace of a turn of ten sentences 35 us over
the length of it, its conclusion with the line of the log 55 us; kept, it takes 4 kB.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import attrs
import trio

if TYPE_CHECKING:
    from types import TracebackType

MOST_MARKS: Final = 200
"""Marks kept of one turn; further ones are counted in `TurnTrace.left_out`."""
MOST_STAGES: Final = 200
"""Stages kept of one turn; further ones are counted in `TurnTrace.left_out`."""


class Moment(enum.Enum):
    """Something that happens at one instant of a turn.

    Those that can happen again are marked every time, the others at the first time of
    each attempt.
    """

    VOICE_START = "voice_start"
    """Somebody began to speak."""
    TENTATIVE_END = "tentative_end"
    """They may have finished; a speculation begins."""
    VOICE_RESUMED = "voice_resumed"
    """They had not."""
    COMMITTED_END = "committed_end"
    """They have finished; times of a turn that was spoken count from here."""
    TRANSCRIPT = "transcript"
    """What they said is known."""
    FIRST_TOKEN = "first_token"  # noqa: S105  no password
    """The language model gave its first piece."""
    FIRST_SENTENCE = "first_sentence"
    """There is something whole to be spoken."""
    FIRST_SOUND = "first_sound"
    """The first byte of synthesised speech."""
    SPEAKING = "speaking"
    """`tts start` was posted."""
    FIRST_FRAME = "first_audio"
    """The first frame of speech was sent. Named after what the device does with it."""
    INTERRUPTED = "interrupted"
    """The reply fell silent, perhaps for a false interruption only."""
    RESUMED = "resumed"
    """The interruption was a false one; the reply goes on."""
    LAST_FRAME = "last_frame"
    """The last frame of speech was sent."""
    DRAINED = "drained"
    """The device has played all of it."""


_REPEATABLE: Final = frozenset(
    {Moment.TENTATIVE_END, Moment.VOICE_RESUMED, Moment.INTERRUPTED, Moment.RESUMED}
)
_OF_THE_EAR: Final = frozenset(
    {Moment.VOICE_START, Moment.TENTATIVE_END, Moment.VOICE_RESUMED, Moment.COMMITTED_END}
)
"""These are of the turn, whatever is being attempted meanwhile."""


class StageOutcome(enum.Enum):
    """How a stage ended."""

    OPEN = "open"
    """It has not."""
    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """It was stopped from outside, or was not over when the turn was."""


@attrs.frozen
class Mark:
    """A moment that came."""

    moment: Moment
    at: float
    """Trio time."""
    attempt: int
    """Number of the attempt that it belongs to; 0 where it is of the turn itself."""
    reason: str
    """One of our own words, such as why a reply fell silent (`barge_in`, `abort`)."""


@attrs.define
class Stage:
    """One piece of work for a turn, such as the recognition or one sentence's synthesis.

    A context manager around that work; what the work raises is noted and goes on.
    """

    name: str
    """`asr`, `llm`, `tts`, `tool`, …"""
    engine: str
    """Who does it; may be set while it runs, as where a fallback takes over."""
    attempt: int
    began: float = attrs.field(factory=trio.current_time)
    """Trio time."""
    ended: float | None = None
    """Trio time."""
    outcome: StageOutcome = StageOutcome.OPEN
    category: str = ""
    """Of a failure: the category of the engine's error, or the name of another exception."""

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.ended is not None:
            return
        if error is None:
            self.end(StageOutcome.OK)
            return
        category = failure_category(error)
        self.end(StageOutcome.FAILED if category else StageOutcome.CANCELLED, category)

    def end(self, outcome: StageOutcome, category: str = "") -> None:
        """It is over now, unless it was before."""
        if self.ended is None:
            self.ended, self.outcome, self.category = trio.current_time(), outcome, category


@attrs.define
class _Book:
    """What a trace and its attempts write into."""

    marks: list[Mark] = attrs.field(factory=list)
    stages: list[Stage] = attrs.field(factory=list)
    left_out: int = 0
    is_closed: bool = False

    def mark(self, moment: Moment, attempt: int, at: float | None, reason: str) -> None:
        if self.is_closed:
            return
        if len(self.marks) >= MOST_MARKS:
            self.left_out += 1
        elif moment in _REPEATABLE or self.time_of(moment, attempt) is None:
            at = trio.current_time() if at is None else at
            self.marks.append(Mark(moment, at, attempt, reason))

    def enter(self, stage: Stage) -> None:
        if self.is_closed:
            return
        if len(self.stages) >= MOST_STAGES:
            self.left_out += 1
        else:
            self.stages.append(stage)

    def time_of(self, moment: Moment, attempt: int) -> float | None:
        """The latest time of this moment in this attempt."""
        for mark in reversed(self.marks):
            if mark.moment is moment and mark.attempt == attempt:
                return mark.at
        return None

    def close(self) -> None:
        self.is_closed = True
        for stage in self.stages:
            stage.end(StageOutcome.CANCELLED)


@attrs.define
class Attempt:
    """One go at an answer: the only one, or one of several speculations.

    What is noted for it after it was discarded, or after the turn was concluded, is
    ignored, for its tasks may still be unwinding.
    """

    number: int
    """From 1."""
    speculative: bool
    """It began before the end of the speech was certain."""
    _book: _Book = attrs.field(repr=False)
    began: float = attrs.field(factory=trio.current_time)
    """Trio time."""
    discarded_at: float | None = None
    """Trio time at which it came to nothing, for the user went on speaking."""

    def mark(self, moment: Moment, *, at: float | None = None, reason: str = "") -> None:
        """It happened now, or at the Trio time `at`; what happens once is marked once."""
        if moment in _OF_THE_EAR:
            self._book.mark(moment, 0, at, reason)
        elif self.discarded_at is None:
            self._book.mark(moment, self.number, at, reason)

    def stage(self, name: str, *, engine: str = "") -> Stage:
        """A context manager around one stage; `name` and `engine` are words of our own."""
        stage = Stage(name, engine, self.number)
        if self.discarded_at is None:
            self._book.enter(stage)
        return stage

    def discard(self) -> None:
        """It came to nothing; what it had done stays in the trace."""
        if self.discarded_at is None and not self._book.is_closed:
            self.discarded_at = trio.current_time()


def _ignore(_: TurnTrace) -> None:
    """Nobody wants to know."""


@attrs.define(kw_only=True)
class TurnTrace:
    """One turn. For the tasks of one event loop; nothing in it waits."""

    number: int
    """Of the turn in its session; may be set later, for the ear comes before the turn."""
    occasion: str
    """What is answered: `spoken`, `typed`, `wake word`, …; a word of our own."""
    device: str = ""
    session: str = ""
    on_conclusion: Callable[[TurnTrace], None] = attrs.field(default=_ignore, repr=False)
    """Called once, when nothing will change any more; must neither wait nor raise."""
    began: float = attrs.field(factory=trio.current_time)
    """Trio time."""
    began_unix: float = attrs.field(factory=time.time)
    """The same in Unix time, for the reader: no duration is measured by it."""
    concluded_at: float | None = attrs.field(default=None, init=False)
    """Trio time."""
    outcome: str = attrs.field(default="", init=False)
    """`finished`, `failed`, `interrupted`, …; empty until the turn is concluded."""
    attempts: list[Attempt] = attrs.field(factory=list, init=False)
    lengths: dict[str, int] = attrs.field(factory=dict, init=False)
    """Such as `transcript_characters`; in place of what was said."""
    _book: _Book = attrs.field(factory=_Book, init=False, repr=False)
    _recognised_in_vain: float = attrs.field(default=0.0, init=False, repr=False)

    @property
    def marks(self) -> list[Mark]:
        """In the order in which they were made."""
        return self._book.marks

    @property
    def stages(self) -> list[Stage]:
        """In the order in which they began."""
        return self._book.stages

    @property
    def left_out(self) -> int:
        """Marks and stages for which there was no room."""
        return self._book.left_out

    @property
    def origin(self) -> float:
        """Trio time from which people count: the end of the speech, else the beginning."""
        committed = self._book.time_of(Moment.COMMITTED_END, 0)
        return self.began if committed is None else committed

    @property
    def answer(self) -> Attempt | None:
        """The attempt that was not discarded, else the last one; None before there is any."""
        for attempt in self.attempts:
            if attempt.discarded_at is None:
                return attempt
        return self.attempts[-1] if self.attempts else None

    def attempt(self, *, speculative: bool = False) -> Attempt:
        """Begin another go at an answer; an earlier one that is still going on is discarded."""
        if self.attempts:
            self.attempts[-1].discard()
        attempt = Attempt(len(self.attempts) + 1, speculative, self._book)
        self.attempts.append(attempt)
        return attempt

    def mark(self, moment: Moment, *, at: float | None = None, reason: str = "") -> None:
        """As `Attempt.mark`, of the present attempt; of the turn itself before there is any."""
        attempt = self.answer
        if attempt is None:
            self._book.mark(moment, 0, at, reason)
        else:
            attempt.mark(moment, at=at, reason=reason)

    def stage(self, name: str, *, engine: str = "") -> Stage:
        """As `Attempt.stage`, of the present attempt, which begins with it where there is none."""
        return (self.answer or self.attempt()).stage(name, engine=engine)

    def measure(self, **lengths: int) -> None:
        """Note lengths and numbers: never a text."""
        if self.concluded_at is None:
            self.lengths.update(lengths)

    def recognised_in_vain(self, seconds: float) -> None:
        """So long a recogniser worked at what turned out not to be the end."""
        if self.concluded_at is None:
            self._recognised_in_vain += seconds

    @property
    def wasted_seconds(self) -> float:
        """Work that came to nothing because the user went on speaking.

        How long discarded attempts waited for a transcript is not in it: that is part of
        the recognition in vain.
        """
        discarded = {a.number for a in self.attempts if a.discarded_at is not None}
        return self._recognised_in_vain + sum(
            (stage.ended or stage.began) - stage.began
            for stage in self.stages
            if stage.attempt in discarded and stage.name != "asr"
        )

    def time_of(self, moment: Moment) -> float | None:
        """When this was, of the present attempt or of the turn itself, the last time."""
        attempt = self.answer
        at = None if attempt is None else self._book.time_of(moment, attempt.number)
        return self._book.time_of(moment, 0) if at is None else at

    def conclude(self, outcome: str) -> bool:
        """The turn is over, unless it was before; tells whether it was not.

        Stages that are still open were cut off. Nothing is noted from now on.
        """
        if self.concluded_at is not None:
            return False
        self.outcome = outcome
        self.concluded_at = trio.current_time()
        self._book.close()
        self.on_conclusion(self)
        return True

    def as_fields(self) -> dict[str, object]:
        """The turn on one line of the log: whole milliseconds from `origin`, and what was used.

        A moment before the end of the speech is negative: with speculation, the
        transcript may be.
        """
        origin = self.origin
        fields: dict[str, object] = {
            "turn": self.number,
            "outcome": self.outcome,
            "occasion": self.occasion,
        }
        for moment in Moment:
            at = None if moment in _SUMMED_UP else self.time_of(moment)
            if at is not None:
                fields[f"{moment.value}_ms"] = _milliseconds(at - origin)
        if self.concluded_at is not None:
            fields["over_ms"] = _milliseconds(self.concluded_at - origin)
        discarded = {a.number for a in self.attempts if a.discarded_at is not None}
        interruptions = sum(mark.moment is Moment.INTERRUPTED for mark in self.marks)
        if interruptions:
            fields["interruptions"] = interruptions
        if discarded:
            fields["discarded"] = len(discarded)
        if self.wasted_seconds:
            fields["wasted_ms"] = _milliseconds(self.wasted_seconds)
        for stage in self.stages:
            if stage.engine and stage.attempt not in discarded:
                fields[stage.name] = stage.engine
        failures = [f"{s.name} {s.category}" for s in self.stages if s.category]
        if failures:
            fields["failures"] = ", ".join(dict.fromkeys(failures))
        return fields | self.lengths


_SUMMED_UP: Final = frozenset(
    {Moment.COMMITTED_END, Moment.VOICE_RESUMED, Moment.INTERRUPTED, Moment.RESUMED}
)
"""Moments that a line has no time of: it counts from them, or counts them."""


@runtime_checkable
class _Categorised(Protocol):
    """An error that tells its category, as those of engines do."""

    @property
    def category(self) -> enum.Enum:
        """Its value is a word of our own."""


def failure_category(error: BaseException) -> str:
    """In a word why a stage failed; "" where it did not fail but was stopped.

    Of a group, its first failure counts: what else is in it was stopped for that one.
    """
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(failure_category, error.exceptions)), "")
    if not isinstance(error, Exception):
        return ""
    if isinstance(error, _Categorised):
        return str(error.category.value)
    return type(error).__name__


def _milliseconds(seconds: float) -> int:
    # Rounded first: what the clock cannot tell apart must not cost a millisecond.
    return int(round(seconds * 1000, 3))
