"""From a sentence as a language model writes it to what is shown and what is said.

Models are told to write plain speech, and write Markdown, links and emoji all the same.
"""

from __future__ import annotations

from typing import Final

import regex

from xiaozhi_trio.session.markup import joined_by_pauses, without_markup
from xiaozhi_trio.session.readings import read_aloud
from xiaozhi_trio.wire.emotion import without_emoji

MAX_DISPLAY_CHARACTERS: Final = 500
"""Longest subtitle: a device shows a few lines, and keeps a message in scarce memory."""

_STRAY = regex.compile(r"(?:[\s,，、。!！?？;；:：…⋯”’）)\]}】》」』»›~～]|\.{2,}+|\.(?!\w))++")
"""Marks that cannot begin a sentence: they were left over from the one before."""

_TIMES = regex.compile(r"(?<=\d)\s*+\*\s*+(?=\d)")
_POWER = regex.compile(r"(?<=\w)\^([23])(?!\w)")
_PAUSING_SIGN = regex.compile(r"[|\u2190-\u21FF]++")
_MUTE_SIGN = regex.compile(r"[\\{}*\u2500-\u27BF\u2B00-\u2BFF]|(?<!\w)\#|(?<!\d)[~～]|[~～](?!\d)")
_SPACING_SIGN = regex.compile(r"[_^]|\s++")
_REPEATED = regex.compile(r"([,，、。;；:：…⋯—–])\1++")
_REPEATED_ENDS = regex.compile(r"[!?！？]{2,}+")
_DOTS = regex.compile(r"\.{4,}+")
_DASHES = regex.compile(r"-{2,}+")
_SPACE_BEFORE_MARK = regex.compile(r"\s++(?=[，。！？；：、])")


def display_text(sentence: str) -> str:
    """The sentence as a subtitle: one line of plain text, at most `MAX_DISPLAY_CHARACTERS` long.

    It can be encoded, and has no markup, emoji or control characters. Empty where
    nothing is left.
    """
    text = _without_stray_marks(without_emoji(without_markup(sentence)))
    if len(text) > MAX_DISPLAY_CHARACTERS:
        return text[: MAX_DISPLAY_CHARACTERS - 1].rstrip() + "…"
    return text


def spoken_text(sentence: str) -> str:
    """The sentence as a synthesizer should say it; empty where there is nothing to pronounce.

    As `display_text`, without a bound. Besides, web addresses are named by their host,
    figures, units and signs that engines misread are words (`read_aloud`), signs that
    only decorate are gone, and repeated marks are one.
    """
    text = without_emoji(without_markup(sentence, aloud=True))
    text = read_aloud(_POWER.sub(_exponent, _TIMES.sub("×", text)))
    text = joined_by_pauses(part.strip() for part in _PAUSING_SIGN.split(text))
    text = _SPACING_SIGN.sub(" ", _MUTE_SIGN.sub("", text))
    text = _DASHES.sub("—", _DOTS.sub("...", text))
    text = _REPEATED_ENDS.sub(_one_end, _REPEATED.sub(r"\1", text))
    text = _without_stray_marks(_SPACE_BEFORE_MARK.sub("", text))
    return text if any(map(str.isalnum, text)) else ""


def _without_stray_marks(text: str) -> str:
    return _STRAY.sub("", text, count=1).strip() if _STRAY.match(text) else text.strip()


def _exponent(power: regex.Match[str]) -> str:
    return "²" if power[1] == "2" else "³"


def _one_end(marks: regex.Match[str]) -> str:
    """An astonished question is a question."""
    return next((mark for mark in marks[0] if mark in "?？"), marks[0][0])
