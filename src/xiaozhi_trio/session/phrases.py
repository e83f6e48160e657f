"""What the server itself says to a user, in both languages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ConversationSettings

_HAN: Final = re.compile(r"[\u3400-\u9fff]")


def is_chinese(text: str) -> bool:
    """Whether to answer this text in Chinese: it holds a Han character."""
    return _HAN.search(text) is not None


@attrs.frozen
class Phrase:
    """One sentence in Chinese and English."""

    zh: str
    en: str

    def like(self, text: str) -> str:
        """The phrase in the language of `text`; in Chinese where there is none."""
        return self.zh if not text or is_chinese(text) else self.en

    @property
    def both(self) -> str:
        """Both languages, for a screen."""
        return f"{self.zh} {self.en}"


ENGINE_FAILED: Final = Phrase(
    "抱歉，我这边出了点问题，请稍后再试。",
    "Sorry, something went wrong on my side. Please try again.",
)
SERVICE_FAILED: Final = Phrase("服务异常", "Service error")
UNSUPPORTED: Final = Phrase("不支持的连接", "Unsupported connection")


def greeting(settings: ConversationSettings) -> Phrase:
    """What the server says to who calls it."""
    return Phrase(settings.greeting_zh, settings.greeting_en)


def farewell(settings: ConversationSettings) -> Phrase:
    """What the server says before it hangs up."""
    return Phrase(settings.farewell_zh, settings.farewell_en)


def stock_phrases(settings: ConversationSettings) -> list[str]:
    """What is worth to be ready as speech, the most wanted first."""
    phrases = (greeting(settings), ENGINE_FAILED, farewell(settings))
    return [text for phrase in phrases for text in (phrase.zh, phrase.en)]
