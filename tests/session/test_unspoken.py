from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.session.unspoken import UnspokenFilter


def filtered(*pieces: str) -> str:
    unspoken = UnspokenFilter()
    return "".join([*map(unspoken.feed, pieces), unspoken.flush()])


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        ("", ""),
        ("你好，world. 3 < 5 `x` ~~~\n", "你好，world. 3 < 5 `x` ~~~\n"),
        ("如下：\n```python\nprint(1)\n```\n好了。", "如下：\n\n好了。"),
        ("如下：```\nls\n```好了。", "如下：好了。"),
        ("```js\nnever closed\n", ""),
        ("````\n```\ninside\n```\n````\nok", "\nok"),
        ("用```ls```\n命令", "用```ls```\n命令"),
        ("用```ls````\n命令", "用```ls````\n命令"),
        ("```markdown\n# 标题\n内容\n```\n完", "# 标题\n内容\n\n完"),
        ("```text\n只有它", "只有它"),
        ("```text\n只有它``", "只有它"),
        ("<think>嗯\n\n</think>你好", "你好"),
        ("A<THINK>x</Think >B", "AB"),
        ("a<think>x</thinking>y</think>b", "ab"),
        ("<think>never closed", ""),
        ("</think>\n你好", "\n你好"),
        ('<tool_call>{"name": "x"}</tool_call>好', "好"),
        ("<tool_call/>好", "好"),
        ("<function=time>{}</function>好", "好"),
        ("<thinker> stays", "<thinker> stays"),
        ("a<!-- x -- > y -->b", "ab"),
        ("完<|im_end|>", "完"),
        ("<｜tool▁calls▁begin｜>好", "好"),
        ("ends with <thi", "ends with <thi"),
        ("ends with ``", "ends with ``"),
    ],
)
def test_passages_for_machines_go(reply: str, left: str) -> None:
    assert filtered(reply) == left
    assert filtered(*reply) == left


def test_speakable_text_is_not_held_back() -> None:
    unspoken = UnspokenFilter()
    assert unspoken.feed("你好，a < b ") == "你好，a < b "
    assert unspoken.feed("x <") == "x "
    assert unspoken.feed("b> y") == "<b> y"


def test_a_thought_of_any_length_is_not_kept() -> None:
    unspoken = UnspokenFilter()
    assert unspoken.feed("<think>" + "嗯" * 100_000) == ""
    assert unspoken.feed("</th") == ""
    assert unspoken.feed("ink>好") == "好"


def test_a_new_reply_may_follow_a_flush() -> None:
    unspoken = UnspokenFilter()
    unspoken.feed("<think>cut off")
    assert unspoken.flush() == ""
    assert unspoken.feed("好") == "好"


@given(
    st.lists(
        st.sampled_from(
            ["<", ">", "`", "```", "\n", "/", "think", "tool_call", "<!--", "-->", "|", "a ", "md"]
        ),
        max_size=30,
    ),
    st.data(),
)
def test_how_a_reply_is_split_does_not_matter(parts: list[str], data: st.DataObject) -> None:
    reply = "".join(parts)
    cut = data.draw(st.integers(0, len(reply)))
    whole = filtered(reply)
    assert filtered(reply[:cut], reply[cut:]) == whole
    assert filtered(*reply) == whole
