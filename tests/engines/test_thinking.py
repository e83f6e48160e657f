from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.engines.llm.thinking import ThinkFilter


def spoken(*pieces: str) -> str:
    thoughts = ThinkFilter()
    return "".join(thoughts.feed(piece) for piece in pieces) + thoughts.close()


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("", ""),
        ("你好", "你好"),
        (" a < b <", " a < b <"),
        ("<think>hm</think>\n\nyes", "yes"),
        ("<think>\n\n</think>\n\n", ""),
        ("first <think>hm</think> then", "first then"),
        ("<think>a</think><think>b</think>c", "c"),
        ("<think>never ends", ""),
        ("<think>a </thin", ""),
        ("a <thin", "a <thin"),
        ("<thinking>", "<thinking>"),
    ],
)
def test_what_is_spoken(text: str, reply: str) -> None:
    assert spoken(text) == reply
    assert spoken(*text) == reply


@given(st.lists(st.integers(0, 40), max_size=8))
def test_it_does_not_matter_where_the_text_is_cut(cuts: list[int]) -> None:
    text = "嗯<<think>a<b</thinx></think>\n 好的 <a>"
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert spoken(*pieces) == "嗯<好的 <a>"


def test_text_that_cannot_begin_a_tag_is_not_held_back() -> None:
    thoughts = ThinkFilter()
    assert thoughts.feed("你好<th") == "你好"
    assert thoughts.feed("e") == "<the"
