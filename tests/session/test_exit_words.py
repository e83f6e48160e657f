from __future__ import annotations

import pytest

from xiaozhi_trio.config.settings import ConversationSettings
from xiaozhi_trio.session.exit_words import is_exit

WORDS = ConversationSettings().exit_words


@pytest.mark.parametrize(
    "text",
    [
        "再见",
        "再见。",
        "拜拜！",
        "退下吧",
        "Goodbye.",
        "Bye-bye!",
        "BYE",
        "That's all.",
        "Good night",
    ],
)
def test_farewells_end_the_conversation(text: str) -> None:
    assert is_exit(text, WORDS)


@pytest.mark.parametrize(
    "text",
    ["", "。", "再见面的时候", "怎么说再见", "say goodbye in French", "bypass", "我们再见一次吧"],
)
def test_talk_about_farewells_does_not(text: str) -> None:
    assert not is_exit(text, WORDS)


def test_an_agent_has_words_of_its_own() -> None:
    assert is_exit("Over & out!", ["over out"])
    assert not is_exit("再见", ["over out"])
    assert not is_exit("", [""])
