"""Words that end the conversation; which they are is `ConversationSettings.exit_words`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.session.bare_text import bare

if TYPE_CHECKING:
    from collections.abc import Iterable


def is_exit(text: str, words: Iterable[str]) -> bool:
    """Whether `text` is one of `words` and nothing else.

    Punctuation, case and spacing do not count, so that "Bye-bye!" is "bye bye"; but 再见面的时候
    is no 再见.
    """
    said = bare(text)
    return bool(said) and any(said == bare(word) for word in words)
