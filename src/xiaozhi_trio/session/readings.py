"""Figures, units and signs read in the language of the sentence around them."""

from __future__ import annotations

from typing import Final

import regex

from xiaozhi_trio.session.chinese_readings import read_chinese
from xiaozhi_trio.session.english_readings import read_english

_TO_READ = regex.compile(r"[\p{N}=≈≠≥≤±√∞÷×²³π/+<>]")
_HAN = regex.compile(r"\p{Han}")
_JAPANESE_OR_KOREAN = regex.compile(r"[\p{Hiragana}\p{Katakana}\p{Hangul}]")
# Single letters name values, and letters joined to a figure are its unit.
_LATIN_WORD = regex.compile(r"(?<![\p{Latin}\d'’])[\p{Latin}'’]{2,}+")
_ENGLISH: Final = frozenset(
    "about all and are as at be but by can costs do does for from has have he her his how if "
    "in is isn't it its it's just me my no not of on one or our out she so some than that the "
    "their them then there they this to up use was we were what when which who will with you "
    "your".split()
)


def read_aloud(sentence: str) -> str:
    """`sentence` with what text front ends misread in words, by the rules of its language.

    Chinese is what has at least as many Han characters as Latin words and neither kana
    nor hangul, so that an English name does not make 15 in 我的iPhone 15 English; English
    is what has one of its commonest words and no foreign letter. Everything else, other
    languages above all, stays as it is: their engines read their figures themselves.
    """
    if not _TO_READ.search(sentence) or _JAPANESE_OR_KOREAN.search(sentence):
        return sentence
    han = len(_HAN.findall(sentence))
    words = _LATIN_WORD.findall(sentence)
    if han and han >= len(words):
        return read_chinese(sentence)
    if not han and _is_english(words):
        return read_english(sentence)
    return sentence


def _is_english(words: list[str]) -> bool:
    lowered = [word.lower().replace("’", "'") for word in words]
    return all(map(str.isascii, lowered)) and not _ENGLISH.isdisjoint(lowered)
