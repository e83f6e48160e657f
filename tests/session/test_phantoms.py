from __future__ import annotations

import pytest

from xiaozhi_trio.session.phantoms import is_foreign, is_loop, is_phantom

LONG = 3_000
"""Milliseconds of voice that leave nothing to doubt."""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "。",
        "[Music]",
        "(wind blowing)",
        "♪♪♪",
        "Thanks for watching!",
        "Thank you so much for watching.",
        "Thank you for watching, bye.",
        "Thanks for watching, and I'll see you next time.",
        "Subtitles by the Amara.org community",
        "Please subscribe!",
        "Don't forget to like and subscribe to my channel.",
        "谢谢观看",
        "谢谢大家观看！",
        "感谢您的收看，下期再见。",
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
        "字幕由 Amara.org 社群提供",
        "字幕志愿者 李宗盛",
        "优优独播剧场——YoYo Television Series Exclusive",
        "ご視聴ありがとうございました",
        "시청해주셔서 감사합니다!",
        "Untertitel der Amara.org-Community",
        "Sous-titres réalisés par la communauté",
        "Subtítulos por la comunidad de Amara.org",
        "Спасибо за просмотр!",
        "Thank you, Mr. President, thank you, Mr. President, thank you, Mr. President.",
        "我不知道你在说什么我不知道你在说什么我不知道你在说什么",
        "la la la la la la la la la la",
    ],
)
def test_inventions_are_known_however_long_they_are(text: str) -> None:
    assert is_phantom(text, LONG)


@pytest.mark.parametrize(
    ("text", "phantom_ms", "voiced_ms"),
    [
        ("嗯", 288, 480),
        ("you", 300, 500),
        ("Um.", 200, 500),
        ("Thank you.", 250, 480),
        ("Okay.", 180, 350),
        ("Yes.", 180, 250),
        ("好。", 160, 256),
        ("对", 192, 256),
        ("谢谢", 192, 300),
        ("谢谢大家", 250, 600),
        ("no no no no", 500, 900),
        ("对对对对", 400, 900),
        ("明天早上北京的天气怎么样", 300, 1_200),
        ("What is the weather like in London tomorrow?", 300, 1_500),
    ],
)
def test_short_words_need_their_time(text: str, phantom_ms: int, voiced_ms: int) -> None:
    assert is_phantom(text, phantom_ms)
    assert not is_phantom(text, voiced_ms)


@pytest.mark.parametrize("text", ["停", "不", "No.", "Stop!", "等等", "别说了", "What?", "三个"])
def test_what_stops_or_changes_something_is_heard_at_once(text: str) -> None:
    assert not is_phantom(text, 170)


@pytest.mark.parametrize(
    "text",
    [
        "谢谢你帮我查天气",
        "How do I subscribe to my channel on the television?",
        "给这部电影加中文字幕要多久？我想给奶奶看一部老电影",
        "好不好，好不好，好不好",
        "no no no, I said Tuesday",
        "I went home, and you went home",
        "我的电话是一三八零零零零零零零零",
        "Stop (please) talking",
    ],
)
def test_speech_is_no_phantom(text: str) -> None:
    assert not is_phantom(text, LONG, language="zh", expected=("zh", "en"))


def test_a_loop_is_most_of_the_text() -> None:
    refrain = "we will rock you " * 2
    assert not is_loop(refrain)
    assert is_loop(refrain + "we will rock you")
    assert is_loop("so " + "we will rock you " * 3)
    song = "which nobody would have expected to hear from a song such as this one is"
    assert not is_loop("row your boat home " * 3 + song)
    assert is_loop("no " * 9)
    assert not is_loop("no " * 8)


@pytest.mark.parametrize(
    ("text", "language", "expected", "foreign"),
    [
        ("Hello there", "en", ("zh",), True),
        ("Hello there", "en", ("zh", "en"), False),
        ("Hello there", None, ("zh",), False),
        ("你好", None, ("zh", "en"), False),
        ("你好", None, ("en",), True),
        ("뭐야", "zh", ("zh", "en"), True),
        ("ご覧ください", None, ("zh",), True),
        ("ご覧ください", None, ("ja",), False),
        ("東京へ", None, ("ja",), False),
        ("Привет", None, ("de",), True),
        ("用Python写代码", None, ("zh",), False),
        ("123", None, ("zh",), False),
    ],
)
def test_the_language_lock(
    text: str, language: str | None, expected: tuple[str, ...], foreign: bool
) -> None:
    assert is_foreign(text, language, expected) is foreign
    assert is_phantom(text, LONG, language=language, expected=expected) is foreign


def test_without_expected_languages_any_is_welcome() -> None:
    assert not is_phantom("뭐야 이게", LONG, language="ko")
