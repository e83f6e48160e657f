from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.session.spoken_text import MAX_DISPLAY_CHARACTERS, display_text, spoken_text


@pytest.mark.parametrize(
    ("sentence", "shown", "said"),
    [
        ("你好，我是小智。", "你好，我是小智。", "你好，我是小智。"),
        ("I am **fine**, thanks! 😀", "I am fine, thanks!", "I am fine, thanks!"),
        ("😀 你好👋🏽呀🇨🇳！", "你好呀！", "你好呀！"),
        ("1. [打开](https://a.b/c)它", "1. 打开它", "一，打开它"),
        ("看https://www.a.cn/x", "看https://www.a.cn/x", "看a.cn"),
        # What is left over from the sentence before.
        ("！我不信", "我不信", "我不信"),
        ("”他说。", "他说。", "他说。"),
        ("...and so on", "and so on", "and so on"),
        (".NET is fine", ".NET is fine", ".NET is fine"),
        ("“好。”", "“好。”", "“好。”"),
        # Repeated marks.
        ("你好！！！真的？！", "你好！！！真的？！", "你好！真的？"),
        ("Really!?!? Yes......", "Really!?!? Yes......", "Really? Yes..."),
        ("嗯……好，，好。。。", "嗯……好，，好。。。", "嗯…好，好。"),
        ("他——走了 -- really", "他——走了 -- really", "他—走了 — really"),
        ("Wow!! No", "Wow!! No", "Wow! No"),
        # Signs.
        ("好呀~ 10~20度", "好呀~ 10~20度", "好呀 十到二十度"),
        ("3*4=12", "3*4=12", "3×4=12"),
        ("北京→上海", "北京→上海", "北京，上海"),
        ("A -> B | C", "A -> B | C", "A -> B, C"),
        ("★好★ ■项目", "★好★ ■项目", "好 项目"),
        ("C# is #1", "C# is #1", "C# is 1"),
        ("snake_case x^2", "snake_case x^2", "snake case x²"),
        ("好 ，走", "好 ，走", "好，走"),
        ("100% 25℃", "100% 25℃", "100% 25℃"),
        # Nothing to pronounce.
        ("", "", ""),
        ("。！？", "", ""),
        ("😀", "", ""),
        ("1️⃣", "", ""),
        ("---", "", ""),
        ("+ = &", "= &", ""),
        ("```python", "", ""),
        ("<think>嗯</think>", "", ""),
    ],
)
def test_what_is_shown_and_what_is_said(sentence: str, shown: str, said: str) -> None:
    assert display_text(sentence) == shown
    assert spoken_text(sentence) == said


def test_a_subtitle_has_a_bound_and_says_that_it_was_cut() -> None:
    assert len(display_text("字" * MAX_DISPLAY_CHARACTERS)) == MAX_DISPLAY_CHARACTERS
    shown = display_text("字" * 10_000)
    assert len(shown) == MAX_DISPLAY_CHARACTERS
    assert shown.endswith("字…")
    assert display_text("字" * 498 + " " + "字" * 9) == "字" * 498 + "…"
    assert len(spoken_text("字" * 10_000)) == 10_000


@given(
    st.text(st.sampled_from("你a1*_`~#[]()<>|\\$&;:/.-!？。，\n \t\ud800\x00\u202e😀\u200d\ufe0f"))
)
def test_whatever_a_model_writes_can_be_sent_and_spoken(sentence: str) -> None:
    shown, said = display_text(sentence), spoken_text(sentence)
    for text in (shown, said):
        text.encode()
        assert text == text.strip()
        assert text.replace("\u200d", "").isprintable()
        assert "😀" not in text
    assert len(shown) <= MAX_DISPLAY_CHARACTERS
    assert not said or any(map(str.isalnum, said))


@pytest.mark.parametrize(
    "part",
    [
        *"[*_`|\n#>!~$“😀(. ",
        *("[a](", "<a ", "<b", "$a", "\\(", "http://", "- ", "&a", "【a", "\\frac{", "1. \n", "a@"),
    ],
)
def test_no_sentence_takes_long(part: str) -> None:
    sentence = part * 20_000
    begin = process_time()
    spoken_text(sentence)
    display_text(sentence)
    # Some hundredths of a second; a quadratic rule takes ten seconds and more.
    assert process_time() - begin < 2
