"""Cutting a reply into sentences while the language model still writes it.

What is given out is spoken as a whole, so that cuts are late enough to sound right and
early enough to be heard soon:

* Chinese end marks (。！？；) cut at once. Where a quotation or bracket is open, and after
  …, the next character decides. A second mark after a cut (？ and then ！) leads the next
  sentence.
* `.` `!` `?` wait for the next character, and for the next word where a closing mark
  follows or an abbreviation may or may not end the sentence.
* The first sentence of a reply also ends at a clause mark (，、,：:;), once it is worth
  speaking, and before a word that opens a clause ("but", 但是), once it has got long. Others
  end there only where they grow too long. It is never cut between other words: the
  synthesizer would let its voice fall in the middle of a phrase, and a word of Chinese
  might be cut in two, which is worse than the 200 ms that a model of 40 tokens/s takes
  for the next eight words.
* A later sentence too short to be spoken well goes together with the one after it.

The same text gives the same sentences however it was split into pieces; only the piece
with which a sentence comes out differs. Every character is looked at once, and no more
than `SegmentationLimits.characters` are held.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import attrs
import regex

from xiaozhi_trio.session.full_stop import Continuation, what_continues
from xiaozhi_trio.session.script import is_cjk


@attrs.frozen(kw_only=True)
class SegmentationLimits:
    """When a piece of text is worth speaking.

    Lengths are in syllables as a synthesizer would speak them: a CJK character or a
    digit is one, an English word one and a half.
    """

    first_clause: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Least length of the clause that the first sentence is cut down to: a second of speech,
    in which the next piece can be synthesised."""
    first_opener: float = attrs.field(default=9.0, validator=attrs.validators.gt(0))
    """Length from which on the first sentence is cut before a word that opens a clause: six
    English words, so that both parts sound whole."""
    shortest: float = attrs.field(default=3.0, validator=attrs.validators.gt(0))
    """Least length of a sentence after the first; synthesizers intone less than that badly."""
    clause_bound: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    """Length from which on a sentence is cut at a clause mark: some 15 s of speech."""
    hard_bound: float = attrs.field(default=90.0, validator=attrs.validators.gt(0))
    """Length at which a sentence is cut at its last white space, or anywhere."""
    characters: int = attrs.field(default=400, validator=attrs.validators.gt(0))
    """The same for text that counts no syllables, in characters: the bound of memory."""


_SYLLABLES_OF_A_WORD: Final = 1.5
_LETTERS_OF_A_WORD: Final = 8
"""A longer run of letters counts as another word with each of these."""

_CHINESE_STOPS: Final = frozenset("。！？；｡؟۔।॥")
"""Those that end a sentence whatever follows: of Chinese and Japanese, Arabic, Urdu, Hindi."""
_DOTS: Final = frozenset("…⋯")
_ENGLISH_MARKS: Final = frozenset("!?")
_STOPS: Final = _CHINESE_STOPS | _DOTS | _ENGLISH_MARKS | {"."}
_WIDE_PAUSES: Final = frozenset("，、：")
_PAUSES: Final = _WIDE_PAUSES | frozenset(",:;")
_OPENERS: Final = frozenset("([{（［｛【〔〈《「『“‘„‚")
_CLOSERS: Final = frozenset(")]}）］｝】〕〉》」』”’")
_LOW_QUOTES: Final = {"„": "“", "‚": "‘"}
"""German, Polish and Czech quotations, which end with what opens English ones."""
_INVISIBLE_CLOSERS: Final = frozenset("'*_`»›«‹")
"""An apostrophe, Markdown that ends with the sentence, and guillemets, which point either way."""

_OPENS_CLAUSE = regex.compile(
    r"(?<=\w)(?<!\b(?:and|or|so|as|even|only|just|not|what|but|for|except))\s"
    r"((?:(?:and|or|so)\s(?:i|you|he|she|it|we|they|there|this|that|then|if|when|because)|but|because"
    r"|although|though|whereas|unless|until|while|if|when|since)\s)\Z",
    regex.IGNORECASE,
)
"""Words that open a clause wherever they stand: "and" opens one before a subject only."""
_OPENS_CHINESE_CLAUSE: Final = frozenset(
    "但是 而且 并且 因为 所以 然后 或者 不过 如果 虽然 同时".split()
)
_LONGEST_OPENER: Final = 20
"""Characters that are searched for one."""


_UNLESS_SMALL: Final = {Continuation.SMALL_LETTER, Continuation.SMALL_LETTER_OR_DIGIT}
_UNLESS_DIGIT: Final = {Continuation.DIGIT, Continuation.SMALL_LETTER_OR_DIGIT}


class _Kind(Enum):
    """What a sentence may have ended with."""

    CHINESE = auto()
    DOTS = auto()
    STOP = auto()
    MARK = auto()
    CLAUSE = auto()


class _Verdict(Enum):
    WAIT = auto()
    CUT = auto()
    GO_ON = auto()


@attrs.define
class _Ending:
    """An end of a sentence that the next character has to confirm."""

    kind: _Kind
    unless: Continuation = Continuation.NEVER
    spaced: bool = False


@attrs.frozen
class _Cut:
    """A place inside the pending sentence where it may be cut."""

    at: int
    """Characters before it."""
    length: float
    """Syllables before it."""


class SentenceSegmenter:
    """The sentences of one reply, in order.

    Nothing is lost or invented: the sentences together are the text fed, but for the
    white space between them and for a tail or an overlong run without any letter or
    digit, which cannot be spoken.
    """

    def __init__(self, limits: SegmentationLimits | None = None) -> None:
        self._limits = limits or SegmentationLimits()
        self._ready: list[str] = []
        self._begin()

    def feed(self, piece: str) -> list[str]:
        """Take the next piece of the reply, of any size; give the sentences it completes."""
        for char in piece:
            self._take(char)
        return self._hand_over()

    def flush(self) -> list[str]:
        """The reply ends or pauses here: give what is left. The next piece begins a new reply."""
        if self._length:
            self._cut_here()
        self._begin()
        return self._hand_over()

    def _begin(self) -> None:
        self._pending = ""
        self._length = 0.0
        self._letters = 0
        self._open = 0
        self._quoted = False
        self._low_quote = ""
        self._first = True
        self._ending: _Ending | None = None
        self._clause: _Cut | None = None
        self._space: _Cut | None = None

    def _hand_over(self) -> list[str]:
        ready, self._ready = self._ready, []
        return ready

    def _take(self, char: str) -> None:
        if char == "\n":
            self._end_line()
            return
        ending = self._ending
        if ending is not None:
            verdict = self._judge(ending, char)
            if verdict is _Verdict.WAIT:
                self._append(char)
                if ending.kind is _Kind.CHINESE and not self._nested:
                    self._end_sentence()
                return
            self._ending = None
            if verdict is _Verdict.CUT:
                if ending.kind is _Kind.CLAUSE:
                    self._end_clause()
                else:
                    self._end_sentence()
        previous = self._pending[-1:]
        self._append(char)
        if char in _STOPS:
            self._stop(char, previous)
        elif char in _PAUSES:
            self._pause(char, previous)
        elif self._first and not self._nested:
            self._cut_before_clause(char, previous)

    def _append(self, char: str) -> None:
        space = char.isspace()
        if space and not self._pending:
            return
        self._pending += char
        if space:
            self._space = _Cut(len(self._pending), self._length)
        self._measure(char)
        if char == self._low_quote or char in _CLOSERS:
            self._open = max(self._open - 1, 0)
            self._low_quote = ""
        elif char in _OPENERS:
            self._open += 1
            self._low_quote = _LOW_QUOTES.get(char, "")
        elif char == '"':
            self._quoted = not self._quoted
        self._keep_bounds()

    def _measure(self, char: str) -> None:
        if not char.isalnum():
            if char not in "'’":
                self._letters = 0
        elif char.isdigit() or is_cjk(char):
            self._letters = 0
            self._length += 1
        else:
            if self._letters % _LETTERS_OF_A_WORD == 0:
                self._length += _SYLLABLES_OF_A_WORD
            self._letters += 1

    @property
    def _nested(self) -> bool:
        return self._open > 0 or self._quoted

    def _closes(self, char: str) -> bool:
        if char == '"':
            return self._quoted
        return char in _INVISIBLE_CLOSERS or char in _CLOSERS or char == self._low_quote

    def _stop(self, char: str, previous: str) -> None:
        """An end mark has come: cut, or note what has to be known first."""
        if char in _CHINESE_STOPS:
            if self._nested:
                self._ending = _Ending(_Kind.CHINESE)
            else:
                self._end_sentence()
        elif char in _DOTS:
            self._ending = _Ending(_Kind.DOTS, Continuation.SMALL_LETTER)
        elif char in _ENGLISH_MARKS:
            self._ending = _Ending(_Kind.MARK)
        elif previous == ".":
            self._ending = _Ending(_Kind.STOP, Continuation.SMALL_LETTER)
        else:
            unless = what_continues(self._pending[:-1])
            if unless is not Continuation.ALWAYS:
                self._ending = _Ending(_Kind.STOP, unless)

    def _pause(self, char: str, previous: str) -> None:
        """A clause mark has come."""
        if char in _WIDE_PAUSES and not previous.isdigit():
            self._end_clause()
        else:
            self._ending = _Ending(_Kind.CLAUSE)

    def _cut_before_clause(self, char: str, previous: str) -> None:
        """Cut the first sentence before the clause that the word just ended opens."""
        bound = self._limits.first_opener
        if self._length < bound:
            return
        if char.isspace():
            found = _OPENS_CLAUSE.search(self._pending[-_LONGEST_OPENER:])
            opener = found[1] if found else ""
            length = self._length - _SYLLABLES_OF_A_WORD * len(opener.split())
        else:
            opener = previous + char if previous + char in _OPENS_CHINESE_CLAUSE else ""
            length = self._length - len(opener)
        if opener and length >= bound:
            self._cut(_Cut(len(self._pending) - len(opener), length))

    def _judge(self, ending: _Ending, char: str) -> _Verdict:
        """What `char`, which comes next, makes of a possible end."""
        if not ending.spaced:
            if self._closes(char):
                if ending.kind in {_Kind.STOP, _Kind.MARK}:
                    ending.unless = Continuation.SMALL_LETTER
                return _Verdict.WAIT
            if ending.kind is not _Kind.CLAUSE and char in _STOPS:
                if char == ".":
                    ending.unless = Continuation.SMALL_LETTER
                return _Verdict.WAIT
        if char.isspace():
            if ending.unless is Continuation.NEVER:
                return _Verdict.CUT
            ending.spaced = True
            return _Verdict.WAIT
        if ending.unless in _UNLESS_SMALL and char.islower():
            return _Verdict.GO_ON
        if ending.unless in _UNLESS_DIGIT and char.isdigit():
            return _Verdict.GO_ON
        if ending.spaced or _may_follow(ending.kind, char):
            return _Verdict.CUT
        return _Verdict.GO_ON

    def _end_line(self) -> None:
        self._ending = None
        self._open = 0
        self._quoted = False
        self._low_quote = ""
        if self._pending:
            self._append("\n")
        self._end_sentence()

    def _end_sentence(self) -> None:
        """Cut here, unless what is pending is not worth speaking alone."""
        self._ending = None
        if self._length and (self._first or self._length >= self._limits.shortest):
            self._cut_here()

    def _end_clause(self) -> None:
        overlong = self._length >= self._limits.clause_bound
        if overlong or (
            self._first and not self._nested and self._length >= self._limits.first_clause
        ):
            self._cut_here()
        elif not self._nested and self._length >= self._limits.shortest:
            self._clause = _Cut(len(self._pending), self._length)

    def _keep_bounds(self) -> None:
        limits = self._limits
        if self._length >= limits.clause_bound and self._clause is not None:
            self._cut(self._clause)
        if self._length >= limits.hard_bound or len(self._pending) >= limits.characters:
            if self._space is not None and self._space.length >= limits.shortest:
                self._cut(self._space)
            else:
                self._cut_here()

    def _cut_here(self) -> None:
        self._ending = None
        self._cut(_Cut(len(self._pending), self._length))

    def _cut(self, place: _Cut) -> None:
        """Give out what is before `place`, or drop it where there is nothing to speak."""
        if place.length:
            self._ready.append(self._pending[: place.at].strip())
            self._first = False
        rest = self._pending[place.at :].lstrip()
        removed = _Cut(len(self._pending) - len(rest), place.length)
        self._pending = rest
        if not rest:
            self._letters = 0
        self._length -= place.length
        self._clause = _behind(self._clause, removed)
        self._space = _behind(self._space, removed)


def _behind(place: _Cut | None, removed: _Cut) -> _Cut | None:
    """Where `place` is once what was before `removed` is gone."""
    if place is None or place.at <= removed.at:
        return None
    return _Cut(place.at - removed.at, place.length - removed.length)


def _may_follow(kind: _Kind, char: str) -> bool:
    """Whether a sentence that ended with `kind` may be followed by `char` without a space."""
    if kind in {_Kind.CHINESE, _Kind.DOTS}:
        return char not in _PAUSES
    if kind is _Kind.MARK and char.isupper():
        return True
    return is_cjk(char) or not (char.isascii() or char.isalnum() or char in _WIDE_PAUSES)
