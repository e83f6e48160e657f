from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.emotion import EMOJI, Emotion, emotion_of, first_emotion, without_emoji

NAMES = (
    "neutral happy laughing funny sad angry crying loving embarrassed surprised shocked thinking "
    "winking cool relaxed delicious kissy confident sleepy silly confused"
)
CONFUSING = "aA1#. \n好。\u200d\ufe0f\ufe0e\u20e3😀🙂🏽👨👧❤☀©🇨🇳🏴\U000e0067\U000e007f"


def test_the_names_are_those_of_the_firmware_font() -> None:
    assert " ".join(Emotion) == NAMES
    assert Emotion.NEUTRAL.value == "neutral"


def test_every_emotion_has_an_emoji_of_its_own() -> None:
    assert list(EMOJI) == list(Emotion)
    assert len(set(EMOJI.values())) == 21
    assert EMOJI[Emotion.CONFUSED] == "🙄"


@pytest.mark.parametrize("emotion", Emotion)
def test_an_emotion_is_found_by_its_name_and_by_its_emoji(emotion: Emotion) -> None:
    assert emotion_of(emotion.value) is emotion
    assert emotion_of(f" {emotion.value.upper()} ") is emotion
    assert first_emotion(f"好{EMOJI[emotion]}的") is emotion


@pytest.mark.parametrize("name", ["", "joyful", "robot_2", "😀", "hap py"])
def test_an_unknown_name_is_neutral(name: str) -> None:
    assert emotion_of(name) is Emotion.NEUTRAL


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("", None),
        ("no face at all: 1 # © ™", None),
        ("🐱 only others 🎉", None),
        ("🐱🎉😠😍", Emotion.ANGRY),
        ("😎🏽", Emotion.COOL),
        ("😠\ufe0f", Emotion.ANGRY),
        ("🙂\u200d", Emotion.HAPPY),
        ("😶\u200d🌫\ufe0f", None),
        ("😶\u200d🌫\ufe0f 😴", Emotion.SLEEPY),
        ("🙂\u200d↔\ufe0f", None),
        ("👨\u200d👩\u200d👧 😭", Emotion.CRYING),
        ("\u200d😜", Emotion.SILLY),
    ],
)
def test_the_first_emoji_of_the_map_counts(text: str, emotion: Emotion | None) -> None:
    assert first_emotion(text) is emotion


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("no emoji", "no emoji"),
        ("  white  space stays  ", "  white  space stays  "),
        ("😀", ""),
        ("  😀  😀  ", ""),
        ("😀 Hello 👋🏽", "Hello"),
        ("Hello 😀!", "Hello!"),
        ("Hello 😀 world", "Hello world"),
        ("Great😀Let's go", "Great Let's go"),
        ("Hi!😀How", "Hi! How"),
        ("(😀ok)", "(ok)"),
        ("a 😀\nb", "a\nb"),
        ("a\n\n😀\n\nb", "a\n\nb"),
        ("好的 😀 我们走", "好的 我们走"),
        ("好的。😀 我们走", "好的。我们走"),
        ("好😀吗", "好吗"),
        ("好😀 ！", "好！"),
        ("🇨🇳你好🇺🇸", "你好"),
        ("🇨 alone", "alone"),
        ("1️⃣ 打开 #️⃣", "打开"),
        ("👨\u200d👩\u200d👧\u200d👦 family", "family"),
        ("x 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f y", "x y"),
        ("❤爱☀️", "爱"),
        ("🫠🪿new", "new"),
        ("©2024 ™ 5*3 #1", "©2024 ™ 5*3 #1"),
        ("©️2024", "2024"),
        ("a\ufe0fb", "ab"),
        ("a \ufe0f b", "a  b"),
        ("①★√→♪", "①★√→♪"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_emoji_go_and_the_white_space_is_mended(text: str, left: str) -> None:
    assert without_emoji(text) == left


@pytest.mark.parametrize("part", ["\u200d", "😀", "😀 ", " ", "1\ufe0f", "🇨", "😶\u200d"])
def test_no_text_takes_long(part: str) -> None:
    begin = process_time()
    without_emoji(part * 100_000)
    first_emotion(part * 100_000)
    # Some hundredths of a second; a quadratic search takes several seconds.
    assert process_time() - begin < 1


@given(st.text(st.sampled_from(CONFUSING), max_size=30))
def test_nothing_else_is_lost_and_no_emoji_is_left(text: str) -> None:
    left = without_emoji(text)
    assert without_emoji(left) == left
    assert first_emotion(left) is None
    assert [char for char in left if char in "aA.好。"] == [c for c in text if c in "aA.好。"]
    assert not set(left) & set("\ufe0f\ufe0e\u20e3😀🙂🏽👨👧❤☀🇨🇳🏴\U000e0067\U000e007f")
