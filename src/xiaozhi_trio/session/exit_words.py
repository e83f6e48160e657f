"""Words that end the conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xiaozhi_trio.session.bare_text import bare

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_WORDS: Final = (
    "再见",
    "拜拜",
    "拜拜啦",
    "退下",
    "退下吧",
    "你退下吧",
    "小智再见",
    "再见小智",
    "先这样吧",
    "没事了",
    "晚安",
    "goodbye",
    "good bye",
    "bye",
    "bye bye",
    "goodbye xiaozhi",
    "that's all",
    "see you later",
    "good night",
)
"""What people say when they have done; a default for an agent's own list."""


def is_exit(text: str, words: Iterable[str] = EXIT_WORDS) -> bool:
    """Whether `text` is one of `words` and nothing else.

    Punctuation, case and spacing do not count, so that "Bye-bye!" is "bye bye"; but 再见面的时候
    is no 再见.
    """
    said = bare(text)
    return bool(said) and any(said == bare(word) for word in words)
