from __future__ import annotations

import pytest

from xiaozhi_trio.session.completeness import Completeness, completeness


@pytest.mark.parametrize(
    "text",
    [
        "What time is it?",
        "Turn on the light in the kitchen.",
        "I would like a cup of tea.",
        "Tell me a joke!",
        "Where are you from?",
        "Stop.",
        "yes",
        "no thanks",
        "我想要那个吗？",
        "那个是什么",
        "今天天气怎么样？",
        "今天天气怎么样",
        "你吃了吗",
        "那明天呢",
        "帮我打开客厅的灯。",
        "现在几点",
        "这是为什么",
        "不用了",
        "好的",
        "停",
        "如果明天下雨，我们就不去了。",
        "如果下雨怎么办",
        "If it rains, we stay at home.",
        "我的电话是13800138000",
        "一三八零零一三八零零零",
        "Wie spät ist es?",
    ],
)
def test_complete(text: str) -> None:
    assert completeness(text) is Completeness.COMPLETE


@pytest.mark.parametrize(
    "text",
    [
        "嗯…",
        "嗯，",
        "Uh...",
        "I want to, um",
        "I was thinking,",
        "I like tea and",
        "I like tea and.",
        "Do you want tea or?",
        "I am late because.",
        "Give me the.",
        "I am going to",
        "It is a kind of.",
        "I would like to talk about",
        "I'm",
        "If it rains tomorrow.",
        "because I was late",
        "You know.",
        "我想吃苹果和",
        "因为",
        "但是。",
        "我想去，但是",
        "明天下雨的话。",
        "如果明天下雨。",
        "吃饭的时候",
        "我觉得，那个",
        "那个。",
        "那个",
        "那个什么",
        "我想要那个",
        "我想要那个。",
        "我想要那个…",
        "我要那个",
        "帮我打开那个。",
        "给我放一首那个",
        "我想问一下那个",
        "我想听那个什么",
        "嗯那个",
        "然后这个",
        "I want the",
        "I want the…",
        "um",
        "Umm.",
        "Hmm.",
        "Uhh",
        "Play me some, hmm",
        "就是",
        "帮我",
        "我的名字是",
        "我想，",
        "我的电话号码是幺三八",
        "我的电话是138 0013",
        "138，",
        "一三八",
        "my number is one three eight",
        "My number is 138.",
        "The code is 4 5",
        "one two three four",
    ],
)
def test_open(text: str) -> None:
    assert completeness(text) is Completeness.OPEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "。",
        "苹果",
        "Apples.",
        "Turn on the light",
        "帮我打开灯",
        "turn the volume to 50",
        "音量调到50",
        "The year was 1984.",
        "也是",
        "我喜欢这个",
        "不是这个",
        "就这个",
        "我不想要那个",
        "别放那个",
        "帮我看这个",
        "I want that",
        "I want it",
    ],
)
def test_unknown(text: str) -> None:
    assert completeness(text) is Completeness.UNKNOWN
