from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.engines.language import (
    LONGEST_CLAUSE,
    Run,
    has_chinese,
    plain_digits,
    split_clauses,
    split_runs,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好", True),
        ("Hello 世界", True),
        ("〇", True),
        ("𠀀", True),
        ("Hello, world!", False),
        ("，。！", False),
        ("こ", False),
        ("", False),
    ],
)
def test_has_chinese(text: str, expected: bool) -> None:
    assert has_chinese(text) is expected


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("我喜欢machine learning。", ["machine learning"]),
        ("打开Wi-Fi设置", ["Wi-Fi"]),
        ("GPT-4和iPhone15", ["GPT-4", "iPhone15"]),
        ("it's 好", ["it's"]),
        ("走了5km", []),
        ("3D打印", []),
        ("café吗", ["café"]),
        ("end. 好", ["end"]),
    ],
)
def test_latin_words_are_runs(text: str, latin: list[str]) -> None:
    assert [run.text for run in split_runs(text) if run.is_latin] == latin


def test_plain_digits() -> None:
    assert plain_digits("１٣४❶ ½ m² 五") == "1341 ½ m² 五"


def test_runs_keep_their_order() -> None:
    assert split_runs("用Python写") == [
        Run("用", is_latin=False),
        Run("Python", is_latin=True),
        Run("写", is_latin=False),
    ]


@given(st.text(alphabet=st.sampled_from("你好 ,.，。!?aB3-'_\n…”)")))
def test_nothing_is_lost(text: str) -> None:
    assert "".join(run.text for run in split_runs(text)) == text
    assert "".join("".join(split_clauses(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("sentence", "clauses"),
    [
        ("明天早上，北京的天气怎么样？", ["明天早上，", "北京的天气怎么样？"]),
        ("你好，我是小智。", ["你好，我是小智。"]),
        ("圆周率是3.14，对吧？", ["圆周率是3.14，", "对吧？"]),
        ("At 12:30, or 1,000 times.", ["At 12:30,", "or 1,000 times."]),
        ("他说：“走吧！”然后走了。", ["他说：“走吧！”然后走了。"]),
        ("真的吗？！不会吧", ["真的吗？！不会吧"]),
        ("  ", []),
    ],
)
def test_clauses(sentence: str, clauses: list[str]) -> None:
    assert split_clauses(sentence) == clauses


def test_later_clauses_are_gathered() -> None:
    assert len(split_clauses("一二三四五，" * 10)) == 3


def test_text_without_punctuation_is_cut() -> None:
    clauses = split_clauses("好" * 100)
    assert max(map(len, clauses)) == LONGEST_CLAUSE
    assert "".join(clauses) == "好" * 100


def test_long_words_are_cut_between_them() -> None:
    clauses = split_clauses("word " * 100)
    assert len(clauses) > 1
    assert all(set(clause.split()) == {"word"} for clause in clauses)
