"""What was said without how it is written: no case, punctuation or spacing."""

from __future__ import annotations

import unicodedata
from typing import Final

import regex

from xiaozhi_trio.session.script import is_cjk

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]++(?:['’][\p{L}\p{M}\p{N}]++)*+")
_APOSTROPHE: Final = str.maketrans("", "", "'’")


def bare(text: str) -> str:
    """Letters and digits only, in lower case."""
    return "".join(
        char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum()
    )


def words_of(text: str) -> list[str]:
    """The words in lower case without apostrophes; each Chinese, Japanese or Korean
    character is one.
    """
    words: list[str] = []
    for run in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        start = 0
        for at, char in enumerate(run):
            if is_cjk(char):
                if at > start:
                    words.append(run[start:at].translate(_APOSTROPHE))
                words.append(char)
                start = at + 1
        if start < len(run):
            words.append(run[start:].translate(_APOSTROPHE))
    return words
