"""Telling the device's own voice from the user's by what it says.

A microphone beside a loudspeaker hears the reply, and the recogniser writes down pieces of
it, with errors: other characters of the same sound, words missing at both ends, figures in
words or not. A person who answers takes up some words of the reply too, but not many in
a row.
"""

from __future__ import annotations

from typing import Final

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

from xiaozhi_trio.session.bare_text import bare, words_of
from xiaozhi_trio.session.script import is_cjk

LEAST_LIKENESS: Final = 0.72
"""Part of the heard text that has to be found, in order, in one passage of the spoken text.

Halfway between the written examples of its test: echoes with wrong words reach 0.78 and
more, an answer that takes up the words of the reply 0.67. No recording of a loudspeaker
has been measured.
"""
_EXACT_BELOW: Final = 4
"""Syllables below which only an exact quotation counts: two characters agree by chance."""
_LEAST: Final = 2
"""Syllables below which nothing counts, for 好 and "I" are somewhere in every reply."""


def repeats(heard: str, spoken: str) -> bool:
    """Whether `heard` mostly repeats `spoken`: the sentences being said and just said.

    Case, punctuation and spacing do not matter; words have to come in their order, and
    a part of a sentence is enough. False for text that is too short to tell (below
    two words or characters), so that "yes" and 停 always count as the user's. The last word
    may be cut off, as it is where the reply fell silent at its own sound.
    """
    said = words_of(heard)
    if len(said) < _LEAST:
        return False
    if _contains(words_of(spoken), said):
        return True
    if sum(1 if is_cjk(word[0]) else 2 for word in said) < _EXACT_BELOW:
        return False
    return likeness(heard, spoken) >= LEAST_LIKENESS


def likeness(heard: str, spoken: str) -> float:
    """From 0 to 1, how much of `heard` is in that passage of `spoken` that is most like it."""
    needle, reply = bare(heard), bare(spoken)
    if not needle or not reply:
        return 0.0
    if len(needle) >= len(reply):
        return float(Indel.normalized_similarity(needle, reply))
    by_letters = fuzz.partial_ratio(needle, reply) / 100
    return float(min(by_letters, _by_words(words_of(heard), words_of(spoken))))


def _by_words(heard: list[str], spoken: list[str]) -> float:
    """The same over words: letters of an alphabet agree often where no word does."""
    return float(fuzz.partial_ratio(heard, spoken)) / 100


def _contains(words: list[str], part: list[str]) -> bool:
    *whole, last = part
    size = len(whole)
    return any(
        words[at : at + size] == whole and words[at + size].startswith(last)
        for at in range(len(words) - size)
    )
