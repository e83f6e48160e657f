"""What a device is shown and told of a reply: items 72 and 73 of the conformance list."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.session.segmentation import SentenceSegmenter
from xiaozhi_trio.session.spoken_text import MAX_DISPLAY_CHARACTERS, display_text, spoken_text
from xiaozhi_trio.session.unspoken import UnspokenFilter
from xiaozhi_trio.wire.emotion import EMOJI, Emotion, emotion_of, first_emotion

NAMES = (
    "neutral happy laughing funny sad angry crying loving embarrassed surprised shocked thinking "
    "winking cool relaxed delicious kissy confident sleepy silly confused"
)
REPLY = """\
<think>用户要一份菜谱。</think>🙂好的，**西红柿炒鸡蛋**很简单！👨‍🍳

## 材料
| 名称 | 数量 |
|------|------|
| 西红柿 | 2个 |

1. 先看[这个视频](https://www.example.com/v?id=1.5)。
2. Then cook for about 3.5 minutes, e.g. with `oil`!🔥🔥

```python
print("never said")
```
祝你好胃口~ ❤️🇨🇳
"""
MARKUP = ("**", "__", "~~", "`", "](", "|", "##", "- [", "</", "<b", "http://x")


def sentences_of(reply: str) -> list[str]:
    unspoken, segmenter = UnspokenFilter(), SentenceSegmenter()
    sentences = [cut for char in reply for cut in segmenter.feed(unspoken.feed(char))]
    return [*sentences, *segmenter.feed(unspoken.flush()), *segmenter.flush()]


def test_072_an_emotion_is_one_of_the_21_names() -> None:
    names = set(NAMES.split())
    assert {emotion.value for emotion in Emotion} == names
    for name in (*names, "joyful", "", "robot_2", "😀", "NEUTRAL "):
        assert emotion_of(name).value in names
    assert emotion_of("no such face") is Emotion.NEUTRAL
    assert first_emotion(REPLY) is Emotion.HAPPY


@pytest.mark.parametrize("emoji", [*EMOJI.values(), "👨‍👩‍👧", "🇨🇳", "1️⃣", "👋🏽", "❤️", "🏴‍☠️"])
def test_072_no_emoji_is_spoken(emoji: str) -> None:
    for sentence in (f"你好{emoji}呀", f"{emoji} Hello {emoji}!", emoji):
        for text in (spoken_text(sentence), display_text(sentence)):
            assert not set(text) & set(emoji)
    assert spoken_text(f"你好{emoji}呀") == "你好呀"
    assert spoken_text(emoji) == ""


def test_073_a_reply_in_markdown_is_shown_in_plain_sentences() -> None:
    assert [display_text(sentence) for sentence in sentences_of(REPLY)] == [
        "好的，西红柿炒鸡蛋很简单！",
        "材料，名称，数量",
        "西红柿，2个",
        "1. 先看这个视频。",
        "2. Then cook for about 3.5 minutes, e.g. with oil!",
        "祝你好胃口~",
    ]
    assert [spoken_text(sentence) for sentence in sentences_of(REPLY)] == [
        "好的，西红柿炒鸡蛋很简单！",
        "材料，名称，数量",
        "西红柿，两个",
        "一，先看这个视频。",
        "2, Then cook for about 3.5 minutes, e.g. with oil!",
        "祝你好胃口",
    ]


@given(
    st.text(max_size=600)
    | st.lists(st.sampled_from([*"你a1 \n。!*_#>", "\ud800", *MARKUP])).map("".join)
)
def test_073_a_subtitle_is_encodable_and_bounded_and_has_no_control_characters(reply: str) -> None:
    for sentence in [reply, *sentences_of(reply)]:
        shown = display_text(sentence)
        assert shown.encode().decode() == shown
        assert len(shown) <= MAX_DISPLAY_CHARACTERS
        assert not any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in shown)


@given(
    st.lists(
        st.sampled_from(
            ["**你好**", "__b__", "~~旧~~", "`ls`", "[a](http://x)", "<b>x</b>", "，", "字"]
        )
    ).map("".join),
    st.sampled_from(["", "# ", "> ", "- ", "## ", "- [ ] ", "* "]),
)
def test_073_a_subtitle_has_no_markdown(text: str, line_mark: str) -> None:
    shown = display_text(line_mark + text)
    assert not [mark for mark in MARKUP if mark in shown]
    assert not shown.startswith(("# ", "> ", "- ", "* "))
