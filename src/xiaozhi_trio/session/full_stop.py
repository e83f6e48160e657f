"""What the `.` after an English word or a number means."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Continuation(Enum):
    """What the next word has to begin with to show that a `.` did not end the sentence."""

    NEVER = auto()
    """It did, whatever follows."""
    SMALL_LETTER = auto()
    DIGIT = auto()
    ALWAYS = auto()
    """It did not, whatever follows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES: Final = _words(
    "mr mrs ms mx messrs dr prof st mt rev hon gen col maj lt sgt capt cmdr gov sen rep pres "
    "vs cf viz approx est dept"
)
"""Abbreviations that something always follows."""
_SENTENCE_ENDERS: Final = _words("etc inc ltd co corp jr sr bros ave blvd al a.m p.m ph.d")
"""Abbreviations that may end a sentence."""
_BEFORE_NUMBERS: Final = _words(
    "no nos nr fig figs p pp vol vols ch sec art eq "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""Abbreviations where a number follows, words where none does."""

_LAST_WORD = re.compile(r"(?<![A-Za-z])[A-Za-z]+(?:\.[A-Za-z]+)*\Z")
_LOOK_BACK: Final = 24
"""Characters that are searched for an abbreviation."""

_DIGITS: Final = "0123456789"
_BETWEEN_ITEMS: Final = " \t*_#>-•"
_BEFORE_ITEMS: Final = frozenset("\n。！？；，：.!?;,:")
_INSIDE_NUMBERS: Final = frozenset(".,:，：")


def what_continues(before: str) -> Continuation:
    """What has to follow the `.` after `before`, the sentence so far, for it to go on."""
    if _is_list_marker(before):
        return Continuation.ALWAYS
    found = _LAST_WORD.search(before[-_LOOK_BACK:])
    if found is None:
        return Continuation.NEVER
    word = found[0].lower()
    if word in _SENTENCE_ENDERS:
        return Continuation.SMALL_LETTER
    if word in _BEFORE_NUMBERS:
        return Continuation.DIGIT
    if word in _TITLES or _is_initials(found[0], before):
        return Continuation.ALWAYS
    return Continuation.NEVER


def _is_list_marker(before: str) -> bool:
    """Whether `before` ends with a number as it stands before the `.` of an item."""
    rest = before.rstrip(_DIGITS)
    if not 1 <= len(before) - len(rest) <= 3:
        return False
    if rest[-1:] in _INSIDE_NUMBERS and rest[-2:-1].isdigit():
        return False
    stem = rest.rstrip(_BETWEEN_ITEMS)
    return not stem or stem[-1] in _BEFORE_ITEMS


def _is_initials(word: str, before: str) -> bool:
    """`J` and `U.S` and `e.g`, but neither the `I` of "so do I." nor the `A` of 方案A."""
    if len(word) == 1:
        return word.isupper() and word != "I" and not before[-2:-1].isalnum()
    return all(len(part) == 1 for part in word.split("."))
