"""Which script a piece of text is written in, so that the right rules pronounce it."""

from __future__ import annotations

import itertools
import re
import unicodedata

import attrs

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAN_CHARACTER = re.compile(f"[{_HAN}]")

_LETTER = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
# A word may hold digits, as in GPT-4 or iPhone15. Letters that follow a digit are
# no word: they are most often a unit (5km), which the rules of the number read.
_LATIN_WORD = rf"(?<![{_LETTER}0-9])[{_LETTER}](?:[{_LETTER}0-9]|['’.+_-](?=[{_LETTER}0-9]))*"
_LATIN_WORDS = re.compile(rf"{_LATIN_WORD}(?:[ ]+{_LATIN_WORD})*")


# Exponents, which belong to a unit (m²) and are read with it.
_EXPONENTS = frozenset("²³")


def plain_digits(text: str) -> str:
    """`text` with the digits of all scripts and shapes as 0 to 9."""
    return "".join(
        str(unicodedata.digit(character))
        if character.isdigit() and character not in _EXPONENTS
        else character
        for character in text
    )


@attrs.frozen
class Run:
    """Neighbouring text to be read by the same rules."""

    text: str
    is_latin: bool


def has_chinese(text: str) -> bool:
    """True where `text` holds at least one Chinese character."""
    return _HAN_CHARACTER.search(text) is not None


def split_runs(text: str) -> list[Run]:
    """Latin words apart from all else; joined, the runs are `text` again."""
    runs: list[Run] = []
    end = 0
    for words in _LATIN_WORDS.finditer(text):
        runs.append(Run(text[end : words.start()], is_latin=False))
        runs.append(Run(words.group(), is_latin=True))
        end = words.end()
    runs.append(Run(text[end:], is_latin=False))
    return [run for run in runs if run.text]


_BOUNDARY = re.compile(
    r"(?<=[，、；：。！？…—])(?![，、；：。！？…—”’」』）)\"'])|(?<=[,;:.!?])(?=\s)"
)

FIRST_CLAUSE = 4.0
"""Least length of the first clause, in syllables about: shorter ones sound chopped off."""
FULL_CLAUSE = 24.0
"""Length from which a later clause is not made any longer, in syllables about."""
LONGEST_CLAUSE = 40.0
"""Length at which text without any punctuation is cut, in syllables about."""


def split_clauses(sentence: str) -> list[str]:
    """Cut a sentence at its punctuation, so that its first words can be heard early.

    The first clause is short; the later ones are gathered into longer pieces, whose
    intonation is better and which are made while earlier ones are heard.
    """
    pieces = [
        piece
        for part in _BOUNDARY.split(sentence)
        for piece in _cut_to_length(part)
        if piece.strip()
    ]
    clauses: list[str] = []
    current = ""
    for piece in pieces:
        enough = FULL_CLAUSE if clauses else FIRST_CLAUSE
        is_full = _length(current) >= enough or _length(current + piece) > LONGEST_CLAUSE
        if current and is_full:
            clauses.append(current.strip())
            current = ""
        current += piece
    if current:
        clauses.append(current.strip())
    return clauses


def _length(text: str) -> float:
    """About how many syllables: one per Chinese character or digit, one per three letters."""
    return sum(_weight(character) for character in text)


def _weight(character: str) -> float:
    if character.isdigit() or _HAN_CHARACTER.match(character):
        return 1.0
    return 1 / 3 if character.isalpha() else 0.0


def _cut_to_length(piece: str) -> list[str]:
    parts: list[str] = []
    while _length(piece) > LONGEST_CLAUSE:
        lengths = itertools.accumulate(_weight(character) for character in piece)
        fitting = sum(1 for _ in itertools.takewhile(lambda n: n <= LONGEST_CLAUSE, lengths))
        space = piece.rfind(" ", 1, fitting)
        cut = space if space > 0 else fitting
        parts.append(piece[:cut])
        piece = piece[cut:]
    return [*parts, piece]
