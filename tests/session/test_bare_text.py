from __future__ import annotations

import pytest

from xiaozhi_trio.session.bare_text import bare, words_of


@pytest.mark.parametrize(
    ("text", "letters", "words"),
    [
        ("", "", []),
        ("Bye-bye!", "byebye", ["bye", "bye"]),
        ("  你好，World 2！", "你好world2", ["你", "好", "world", "2"]),
        ("Ｏｋ。", "ok", ["ok"]),
        ("Don't it’s", "dontits", ["dont", "its"]),
        ("用GPT4写", "用gpt4写", ["用", "gpt4", "写"]),
    ],
)
def test_text_without_how_it_is_written(text: str, letters: str, words: list[str]) -> None:
    assert bare(text) == letters
    assert words_of(text) == words
