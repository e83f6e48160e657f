"""Figures and signs in an English sentence that text front ends misread.

That of hibari, which both embedded voices use, reads dates, times, amounts, units and
ordinals well, as its phonemes show; they are left to it and to the front ends of remote
services. Only what it gets wrong becomes words here: parts joined by
points, exponents, differences, ranges of percents, signs, volts and watts, area codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import regex

if TYPE_CHECKING:
    from collections.abc import Callable

_POWERS: Final = {"²": "square", "³": "cubic"}
_LENGTHS: Final = {
    "km": "kilometers",
    "cm": "centimeters",
    "mm": "millimeters",
    "m": "meters",
    "ft": "feet",
    "in": "inches",
    "mi": "miles",
}
_UNITS: Final = {"V": "volts", "W": "watts", "mAh": "milliamp hours"}
_SIGNS: Final = {
    "≈": "about",
    "≠": "is not equal to",
    "≥": "at least",
    "≤": "at most",
    "±": "plus or minus",
    "√": "the square root of",
    "∞": "infinity",
    "÷": "divided by",
    "²": "squared",
    "³": "cubed",
}
_NUMBER = r"(?<![\d.,])\d++(?:,\d{3})*+(?:\.\d++)?+"


def _dotted(match: regex.Match[str]) -> str:
    """An address of four parts has dots, a version points."""
    parts = match[0].split(".")
    return (" dot " if len(parts) == 4 else " point ").join(parts)


def _telephone(match: regex.Match[str]) -> str:
    return ", ".join(" ".join(part) for part in match.groups())


_RULES: Final[tuple[tuple[regex.Pattern[str], Callable[[regex.Match[str]], str]], ...]] = tuple(
    (regex.compile(pattern), reading)
    for pattern, reading in (
        (r"(?<![\d.])\d++(?:\.\d++){2,}+(?![\d])", _dotted),
        (r"\((\d{3})\)\s?(\d{3})-(\d{4})(?!\d)", _telephone),
        (rf"({_NUMBER})%\s?[-–~]\s?(?={_NUMBER}%)", lambda m: f"{m[1]}% to "),
        (rf"({_NUMBER})\s?[-–−]\s?(?={_NUMBER}\s?=)", lambda m: f"{m[1]} minus "),
        (rf"({_NUMBER})\s[-–−]\s(?={_NUMBER})", lambda m: f"{m[1]} minus "),
        (r"(?<![\d:])(\d{1,2}):(\d)(?![\d:])", lambda m: f"{m[1]} to {m[2]}"),
        (
            rf"({_NUMBER})\s?({'|'.join(_LENGTHS)})([²³])",
            lambda m: f"{m[1]} {_POWERS[m[3]]} {_LENGTHS[m[2]]}",
        ),
        (
            rf"({_NUMBER})\s?({'|'.join(_UNITS)})(?![\w²³/])",
            lambda m: f"{m[1]} {_UNITS[m[2]]}",
        ),
        (
            rf"\s?[{regex.escape(''.join(_SIGNS))}]\s?",
            lambda m: f" {_SIGNS[m[0].strip()]} ",
        ),
    )
)
_SPACES = regex.compile(r"\s++(?=[,.!?;:]|\Z)|(?<=\s)\s++|\A\s++")


def read_english(sentence: str) -> str:
    """`sentence`, which is English, with these in words."""
    text = sentence
    for pattern, reading in _RULES:
        text = pattern.sub(reading, text)
    return text if text == sentence else _SPACES.sub("", text)
