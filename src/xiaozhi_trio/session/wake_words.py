"""Which texts of `listen detect` only call the device, what it answers to them, and what is
left of a question that was asked in the same breath.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

import regex

from xiaozhi_trio.session.bare_text import words_of
from xiaozhi_trio.session.phrases import is_chinese
from xiaozhi_trio.session.script import is_cjk

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ConversationSettings

_LONGEST: Final = 200
"""Characters; a peer's quarter of a megabyte is no wake word, and takes long to be compared."""

_FEWEST_CHARACTERS: Final = 2
"""Of an end of a wake word that counts: one character alone is the beginning of too much."""
_AFTER_CALL: Final = regex.compile(r"\A[^\p{L}\p{M}\p{N}]+")
"""What parts a wake word from the question."""


def _bare(text: str) -> str:
    """Letters and digits only, in lower case, so that punctuation and spacing do not count."""
    return "".join(
        character.lower()
        for character in unicodedata.normalize("NFKC", text)
        if character.isalnum()
    )


class WakeWords:
    """The wake words of one agent."""

    def __init__(self, settings: ConversationSettings) -> None:
        self._settings = settings
        self._words = frozenset(_bare(word) for word in settings.wake_words)

    def greeting_for(self, text: str) -> str | None:
        """The greeting ("" for silence) where `text` is a wake word, None where it is not."""
        if len(text) > _LONGEST or _bare(text) not in self._words:
            return None
        return self._settings.greeting_zh if is_chinese(text) else self._settings.greeting_en

    def taken_off(self, called: str, text: str) -> str:
        """`text` without the wake word `called`, or its end, that it begins with.

        For speech that began while the wake word was still sounding: most of that was heard
        by the device alone, and its end by us. An end is two characters or more of a script
        without spaces, else whole words, so that 志 and "i" stay, which may be anything. A
        wake word of the list that differs in one character counts as the same, for 你好小志
        is how a recogniser may write 你好小智. "" where nothing else was said.
        """
        bare = _bare(called[:_LONGEST])
        alike = [word for word in self._words if _differing(word, bare) <= 1]
        endings = {ending for word in [bare, *alike] for ending in _endings(called, word)}
        for ending in sorted(endings, key=len, reverse=True):
            end = _end_of(ending, text)
            if end is not None:
                return _AFTER_CALL.sub("", text[end:])
        return text


def _differing(one: str, other: str) -> float:
    if len(one) != len(other):
        return float("inf")
    return sum(a != b for a, b in zip(one, other, strict=True))


def _endings(called: str, bare: str) -> list[str]:
    """The whole of `bare` and its ends; where words begin, the text as it came tells."""
    words = words_of(called)
    sizes = [
        sum(map(len, words[at:]))
        for at in range(len(words))
        if not is_cjk(words[at][0]) or len(words) - at >= _FEWEST_CHARACTERS
    ]
    return [bare[-size:] for size in {len(bare), *sizes} if size]


def _end_of(ending: str, text: str) -> int | None:
    """Where `ending`, which `text` begins with, ends in it; None elsewhere or inside a word."""
    rest = ending
    for at, character in enumerate(text):
        if not rest:
            is_word_going_on = character.isalnum() and not (is_cjk(character) or is_cjk(ending[-1]))
            return None if is_word_going_on else at
        letters = _bare(character)
        if not rest.startswith(letters):
            return None
        rest = rest[len(letters) :]
    return None if rest else len(text)
