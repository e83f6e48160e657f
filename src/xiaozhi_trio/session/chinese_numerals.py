"""Numbers as Chinese speakers say them.

The numerals are those of `cn2an`, which writes 二 everywhere; a person says 两 before
what is counted and before 千, 万 and 亿 at the beginning of a number.
"""

from __future__ import annotations

from typing import Final

import cn2an  # type: ignore[import-untyped]
import regex

LONGEST_NUMBER: Final = 16
"""Digits; longer rows of them are no amounts and are said one by one."""

_DIGITS: Final = str.maketrans("0123456789.", "零一二三四五六七八九点")
_LEADING_TWO = regex.compile(r"(?<![十百千])二(?=[千万亿])")


def spelled(digits: str) -> str:
    """`digits` one by one, with a `.` as 点: years, versions, codes."""
    return digits.translate(_DIGITS)


def dialled(digits: str) -> str:
    """`digits` one by one, the 1 as 幺: numbers to dial and of rooms, flights, buses."""
    return spelled(digits).replace("一", "幺")


def cardinal(number: str) -> str:
    """The amount `number`, decimal digits with at most one `.` and no sign.

    More than `LONGEST_NUMBER` digits, and a zero in front of others, are said digit by digit.
    """
    whole, point, fraction = number.partition(".")
    if len(whole) > LONGEST_NUMBER or (len(whole) > 1 and whole.startswith("0")):
        return spelled(number)
    words: str = cn2an.an2cn(whole, "low")
    return _LEADING_TWO.sub("两", words) + spelled(point + fraction)


def count(number: str) -> str:
    """`number` in front of what is counted: two of something are 两."""
    return "两" if number == "2" else cardinal(number)
