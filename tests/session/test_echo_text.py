from __future__ import annotations

import pytest

from xiaozhi_trio.session.echo_text import LEAST_LIKENESS, likeness, repeats

WEATHER = "今天北京的天气很好，最高气温二十五度，适合出去走走。你想去哪里？"
PARIS = (
    "The capital of France is Paris. It lies on the river Seine, and two million people live there."
)


@pytest.mark.parametrize(
    ("heard", "spoken"),
    [
        (WEATHER, WEATHER),
        ("今天北京的天气很好", WEATHER),
        ("北京的天气", WEATHER),
        ("天气很好", WEATHER),
        # Other characters of the same sound.
        ("今天背景的天气很好", WEATHER),
        ("最高气温二十五度 是和出去走走", WEATHER),
        # Words missing or added at the ends.
        ("的天气很好最高气温二", WEATHER),
        ("出去走走 你想去哪里", WEATHER),
        ("呃今天北京的天气很好", WEATHER),
        ("The capital of France is Paris.", PARIS),
        ("capital of france is paris it lies", PARIS),
        ("the capitol of france is paris", PARIS),
        ("on the river sane and two million people", PARIS),
        ("Two million people live there.", PARIS),
        ("is Paris", PARIS),
        ("river Seine", PARIS),
        # More than the reply: heard twice, or what was said before it.
        (PARIS + " yes", PARIS),
    ],
)
def test_the_devices_own_voice(heard: str, spoken: str) -> None:
    assert repeats(heard, spoken)


@pytest.mark.parametrize(
    ("heard", "spoken"),
    [
        ("", WEATHER),
        ("停", WEATHER),
        ("好", WEATHER),
        ("Paris", PARIS),
        ("yes", PARIS),
        ("停一下", WEATHER),
        ("等一下", WEATHER),
        ("明天呢？", WEATHER),
        ("明天上海的天气怎么样", WEATHER),
        ("我想去颐和园", WEATHER),
        ("换一个话题吧", WEATHER),
        ("那后天会不会下雨", WEATHER),
        ("stop talking", PARIS),
        ("What is the capital of Germany?", PARIS),
        ("How many people live in London?", PARIS),
        ("Is it a big river?", PARIS),
        ("tell me a joke", PARIS),
        ("no I meant the other one", PARIS),
        ("今天北京的天气很好", ""),
        ("你好你好", "hello there"),
    ],
)
def test_the_users_voice(heard: str, spoken: str) -> None:
    assert not repeats(heard, spoken)


def test_likeness_has_a_margin_on_both_sides() -> None:
    assert likeness("今天背景的天气很好", WEATHER) > LEAST_LIKENESS + 0.05
    assert likeness("明天上海的天气怎么样", WEATHER) < LEAST_LIKENESS - 0.05
    assert likeness("", WEATHER) == 0.0


@pytest.mark.parametrize("heard", ["Once u", "upon a ti", "a time ther"])
def test_the_last_word_of_an_echo_may_be_cut_off(heard: str) -> None:
    assert repeats(heard, "Once upon a time there was a little server.")


@pytest.mark.parametrize("heard", ["Onc upon", "once a", "time was", "u"])
def test_other_words_may_not(heard: str) -> None:
    assert not repeats(heard, "Once upon a time there was a little server.")
