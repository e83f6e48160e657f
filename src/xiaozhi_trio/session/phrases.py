"""What the server itself says to a user, in both languages."""

from __future__ import annotations

import re
from typing import Final

import attrs

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
