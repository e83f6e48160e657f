"""What the `.` after a word or a number means.

The abbreviations are those of written English, German, French, Spanish, Italian,
Portuguese, Dutch, Russian and Polish that a spoken reply is likely to have.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import regex


class Continuation(Enum):
    """What the next word has to begin with to show that a `.` did not end the sentence."""

    NEVER = auto()
    """It did, whatever follows."""
    SMALL_LETTER = auto()
    DIGIT = auto()
    SMALL_LETTER_OR_DIGIT = auto()
    ALWAYS = auto()
    """It did not, whatever follows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TITLES: Final = _words(
    "mr mrs ms mx messrs dr prof st mt rev hon gen col maj lt sgt capt cmdr gov sen rep pres "
    "vs cf viz approx est dept "
    "hr fr str mio mrd bzw ca evtl ggf inkl exkl bspw zzgl bd "
    "mme mlle mgr av bd "
    "sr sra srta dra ee avda aprox lic "
    "sig sigg dott avv "
    "bijv dhr mevr "
    "ул им проф акад см "
    "np tzn tzw mgr inż św godz"
)
"""Abbreviations that something always follows."""
_SENTENCE_ENDERS: Final = _words(
    "etc inc ltd co corp jr bros ave blvd al a.m p.m ph.d usw u.a ecc enz uds ud uu itd itp "
    "т.д т.п др руб коп тыс млн млрд"
)
"""Abbreviations that may end a sentence."""
_BEFORE_NUMBERS: Final = _words(
    "no nos nr núm fig figs p pp pág pag vol vols ch sec art eq min max tel ok стр рис гл "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
"""Abbreviations where a number follows, words where none does."""
_NUMBER_FOLLOWS: Final = {Continuation.DIGIT, Continuation.SMALL_LETTER_OR_DIGIT}
_SPACED_ENDERS: Final = frozenset({("т", "д"), ("т", "п"), ("a", "m"), ("p", "m"), ("u", "a")})
"""Abbreviations of two letters with a space between that may end a sentence."""

_ALPHABETIC = r"[\p{L}--\p{Han}--\p{Hiragana}--\p{Katakana}--\p{Hangul}]"
_LAST_WORD = regex.compile(rf"(?V1)(?<!{_ALPHABETIC}){_ALPHABETIC}++(?:\.{_ALPHABETIC}++)*+\Z")
_LETTER_BEFORE = regex.compile(rf"(?V1)(?<!{_ALPHABETIC})({_ALPHABETIC})\.\s?\Z")
_FOR_EXAMPLE = regex.compile(r"(?i)\b(?:p\.\s?e[xj]|par ex|por ej|per es)\Z")
_LOOK_BACK: Final = 24
"""Characters that are searched for an abbreviation."""

_ORDINAL = regex.compile(
    r"(?i)\b(?:am|der|die|das|dem|den|des|vom|zum|zur|im|bis|seit|ab|dette|den|jeder)\s\d{1,2}\Z"
)
"""German and Danish mark ordinals with a point, mostly behind an article."""
_SMALL_NUMBER = regex.compile(r"(?<![\d.,:：])\d{1,2}\Z")

_DIGITS: Final = "0123456789"
_BETWEEN_ITEMS: Final = " \t*_#>-•"
_BEFORE_ITEMS: Final = frozenset("\n。！？；，：.!?;,:")
_INSIDE_NUMBERS: Final = frozenset(".,:，：")


def what_continues(before: str) -> Continuation:
    """What has to follow the `.` after `before`, the sentence so far, for it to go on."""
    if before[-1:].isdigit():
        return _after_number(before)
    found = _LAST_WORD.search(before[-_LOOK_BACK:])
    if found is None:
        return Continuation.NEVER
    word = found[0].lower()
    if word in _SENTENCE_ENDERS:
        return Continuation.SMALL_LETTER
    if word in _TITLES or _FOR_EXAMPLE.search(before):
        return Continuation.ALWAYS
    if len(word) == 1 and (previous := _LETTER_BEFORE.search(before[:-1])):
        may_end = (previous[1].lower(), word) in _SPACED_ENDERS
        return Continuation.SMALL_LETTER if may_end else Continuation.ALWAYS
    if _is_initials(found[0], before) or word == "z":
        return Continuation.ALWAYS
    if len(word) == 1 and found[0].islower():
        # "p. 5" and "p. ex.", and the "x" of "solve for x."
        return Continuation.SMALL_LETTER_OR_DIGIT
    return Continuation.DIGIT if word in _BEFORE_NUMBERS else Continuation.NEVER


def _after_number(before: str) -> Continuation:
    if _is_list_marker(before) or _ORDINAL.search(before[-_LOOK_BACK:]):
        return Continuation.ALWAYS
    return Continuation.SMALL_LETTER if _SMALL_NUMBER.search(before) else Continuation.NEVER


def _is_list_marker(before: str) -> bool:
    """Whether `before` ends with a number as it stands before the `.` of an item."""
    rest = before.rstrip(_DIGITS)
    if not 1 <= len(before) - len(rest) <= 3:
        return False
    if rest[-1:] in _INSIDE_NUMBERS and rest[-2:-1].isdigit():
        return False
    stem = rest.rstrip(_BETWEEN_ITEMS)
    if not stem or stem[-1] not in _BEFORE_ITEMS:
        return not stem
    return stem[-1] != "." or what_continues(stem[:-1]) not in _NUMBER_FOLLOWS


def _is_initials(word: str, before: str) -> bool:
    """`J` and `U.S` and `e.g`, but neither the `I` of "so do I." nor the `A` of 方案A."""
    if len(word) == 1:
        return (
            word.isupper() and word != "I" and not (before[-2:-1].isalnum() or before[-2:-1] == "°")
        )
    return all(len(part) == 1 for part in word.split("."))
