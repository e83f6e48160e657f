"""Which texts of `listen detect` only call the device, and what it answers to them."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.session.phrases import is_chinese

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ConversationSettings

_LONGEST: Final = 200
"""Characters; a peer's quarter of a megabyte is no wake word, and takes long to be compared."""


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
