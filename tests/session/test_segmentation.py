from __future__ import annotations

import itertools
from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xiaozhi_trio.session.segmentation import SegmentationLimits, SentenceSegmenter

TELLING = st.sampled_from(
    [
        *"。！？；…，、：.!?,:;\n \"'“”（）()*-_",
        "你",
        "好的",
        "a",
        "B",
        "1",
        "3.14",
        "Mr",
        "etc",
        "😀",
    ]
)


def segmented(*pieces: str, limits: SegmentationLimits | None = None) -> list[str]:
    segmenter = SentenceSegmenter(limits)
    return [*itertools.chain(*map(segmenter.feed, pieces)), *segmenter.flush()]


@pytest.mark.parametrize(
    ("reply", "sentences"),
    [
        # End marks of both languages.
        ("", []),
        ("你好呀", ["你好呀"]),
        ("你好！我是小智。你呢？", ["你好！", "我是小智。", "你呢？"]),
        ("先看这里；再看那里……最后看完。", ["先看这里；", "再看那里……", "最后看完。"]),
        ("嗯…我想想吧", ["嗯…", "我想想吧"]),
        ("Hello there. How are you? I am fine!", ["Hello there.", "How are you?", "I am fine!"]),
        ("第一行内容\n第二行内容\r\n第三行内容", ["第一行内容", "第二行内容", "第三行内容"]),
        ("Stop!Go on now", ["Stop!", "Go on now"]),
        ("What?!? Really so", ["What?!?", "Really so"]),
        # Mixed languages.
        ("你好world. 我是AI助手。OK!现在开始", ["你好world.", "我是AI助手。", "OK!现在开始"]),
        ("我用Node.js.然后写代码", ["我用Node.js.", "然后写代码"]),
        ("他用iPhone 15.很好用的", ["他用iPhone 15.", "很好用的"]),
        # Dots that end nothing.
        ("Pi is 3.14 or so. Yes it is", ["Pi is 3.14 or so.", "Yes it is"]),
        ("圆周率是3.14159。版本2.4.2发布", ["圆周率是3.14159。", "版本2.4.2发布"]),
        ("Use v2.4.2. It is new", ["Use v2.4.2.", "It is new"]),
        ("Ask Mr. Smith or Dr. Who. They know", ["Ask Mr. Smith or Dr. Who.", "They know"]),
        (
            "Cats e.g. in the U.S. Army i.e. there. Done now",
            [
                "Cats e.g. in the U.S. Army i.e. there.",
                "Done now",
            ],
        ),
        ("By J. K. Rowling. A good book", ["By J. K. Rowling.", "A good book"]),
        (
            "Cats, dogs etc. are pets. Birds etc. Fish swim",
            [
                "Cats, dogs etc. are pets.",
                "Birds etc.",
                "Fish swim",
            ],
        ),
        ("See No. 5 there. Is it? No. It is not", ["See No. 5 there.", "Is it?", "No. It is not"]),
        ("Go to www.example.com. Then stop", ["Go to www.example.com.", "Then stop"]),
        ("Open https://a.b/?q=1.5&r=2! Then stop", ["Open https://a.b/?q=1.5&r=2!", "Then stop"]),
        ("Wait... what is it... Let me see", ["Wait... what is it...", "Let me see"]),
        ("Well…maybe so… Or not so", ["Well…maybe so…", "Or not so"]),
        ("1. Open it. 2. Close it. 3. Go", ["1. Open it.", "2. Close it.", "3. Go"]),
        ("步骤如下：1. 打开它。2. 关上它。", ["步骤如下：", "1. 打开它。", "2. 关上它。"]),
        (
            "At 12:30, not 1,000: fine. Good to know",
            ["At 12:30,", "not 1,000: fine.", "Good to know"],
        ),
        ("Ask Mr... Who knows that", ["Ask Mr...", "Who knows that"]),
        ("嗯……，我想想吧", ["嗯……，我想想吧"]),
        # Closing marks stay.
        ("他说：“你好呀。”然后走了。", ["他说：“你好呀。”", "然后走了。"]),
        ("“真的吗？！”他问我", ["“真的吗？！”", "他问我"]),
        ("（这是注释。）正文开始", ["（这是注释。）", "正文开始"]),
        ("他说「（好吧。）」然后走了", ["他说「（好吧。）」", "然后走了"]),
        ("“第一句话。第二句话。”他说", ["“第一句话。", "第二句话。”", "他说"]),
        ('She said "I am here." Then she left', ['She said "I am here."', "Then she left"]),
        ('"Really so?" he asked. He left', ['"Really so?" he asked.', "He left"]),
        ("It works (I hope.) And so on", ["It works (I hope.)", "And so on"]),
        ("**Note this.** Do that now", ["**Note this.**", "Do that now"]),
        ("没有打开）的。“你好呀。”他说", ["没有打开）的。", "“你好呀。”", "他说"]),
        # A second mark after a cut leads the next sentence.
        ("真的吗？！我不相信。", ["真的吗？", "！我不相信。"]),
        # The first sentence is cut at a clause.
        ("今天天气不错，我们去公园玩吧，好吗？", ["今天天气不错，", "我们去公园玩吧，好吗？"]),
        ("好的，我来帮你。", ["好的，我来帮你。"]),
        ("Sure, I can do it. Fine by me", ["Sure, I can do it.", "Fine by me"]),
        ("Well, of course, I can", ["Well, of course,", "I can"]),
        ("It's Bob's, so what. Fine by me", ["It's Bob's, so what.", "Fine by me"]),
        ("会议时间是12：30，请准时", ["会议时间是12：30，", "请准时"]),
        ("这是（今天的天气，晴）的预报，好", ["这是（今天的天气，晴）的预报，", "好"]),
        # Short sentences go with the next, the first does not wait.
        ("好。是。没问题。走吧", ["好。", "是。没问题。", "走吧"]),
        ("清单\n- 苹果\n- 梨\n- 香蕉", ["清单", "- 苹果\n- 梨", "- 香蕉"]),
        # What cannot be spoken is no sentence.
        ("。。。！！！", []),
        ("😀😀。", []),
        ("---\n标题", ["---\n标题"]),
        ("你好呀！😊我是小智。🎉", ["你好呀！", "😊我是小智。"]),
    ],
)
def test_sentences(reply: str, sentences: list[str]) -> None:
    assert segmented(reply) == sentences
    assert segmented(*reply) == sentences


@pytest.mark.parametrize(
    ("pieces", "at_once"),
    [
        (["你好。"], [["你好。"]]),
        (["你好！"], [["你好！"]]),
        (["你好，今天", "天气很好，"], [[], ["你好，今天天气很好，"]]),
        (["Hello you."], [[]]),
        (["Hello you.", " "], [[], ["Hello you."]]),
        (["It is 3.", "14", ". So"], [[], [], ["It is 3.14."]]),
        (["嗯…", "…", "好"], [[], [], ["嗯……"]]),
        (["“你好。", "”", "他"], [[], ["“你好。”"], []]),
        (["“你好。", "再见"], [[], ["“你好。"]]),
        (["Go on etc. ", "N"], [[], ["Go on etc."]]),
        (["标题\n"], [["标题"]]),
        (["“没有关上的话\n", "你好呀。"], [["“没有关上的话"], ["你好呀。"]]),
        (['"没有关上的话\n', "你好呀。"], [['"没有关上的话'], ["你好呀。"]]),
    ],
)
def test_a_sentence_comes_out_with_the_piece_that_shows_its_end(
    pieces: list[str], at_once: list[list[str]]
) -> None:
    segmenter = SentenceSegmenter()
    assert [segmenter.feed(piece) for piece in pieces] == at_once


def test_a_long_sentence_is_cut_at_its_last_clause_before_the_bound() -> None:
    clause = "一二三四五六七八九十，"
    opening, *rest = segmented("好。" + clause * 14 + "完。")
    assert opening == "好。"
    assert rest == [clause * 5, clause * 5, clause * 4 + "完。"]


def test_past_the_bound_the_next_clause_mark_cuts() -> None:
    assert segmented("好。" + "字" * 70 + "，" + "字" * 5) == ["好。", "字" * 70 + "，", "字" * 5]


def test_without_a_mark_the_last_white_space_cuts() -> None:
    words = [f"word{'s' * (n % 3)}" for n in range(100)]
    sentences = segmented(" ".join(words))
    assert " ".join(sentences).split() == words
    assert len(sentences) == 2
    assert len(sentences[0].split()) == 59


def test_without_white_space_the_bound_cuts() -> None:
    assert segmented("字" * 200) == ["字" * 90, "字" * 90, "字" * 20]
    assert [len(sentence) for sentence in segmented("a" * 1000)] == [400, 400, 200]


def test_no_bracket_is_cut_in_two_where_it_can_be_helped() -> None:
    sentence = "字" * 10 + "（" + "字" * 10 + "，" + "字" * 10 + "）" + "字" * 40 + "，"
    assert segmented("好。" + sentence + "完了吧。") == ["好。", sentence, "完了吧。"]


def test_the_marks_of_one_sentence_do_not_cut_the_next() -> None:
    later = "字" * 65 + "完。"
    assert segmented("好。一二三，四五六。" + later) == ["好。", "一二三，四五六。", later]
    assert segmented("Yes. Now it is here。" + "字" * 95) == [
        "Yes.",
        "Now it is here。",
        "字" * 90,
        "字" * 5,
    ]


def test_what_follows_a_cut_keeps_its_white_space_for_the_next() -> None:
    limits = SegmentationLimits(clause_bound=7.5, hard_bound=12)
    assert segmented("Hi. aa bb, cc dd ee" + "字" * 9, limits=limits) == [
        "Hi.",
        "aa bb,",
        "cc dd",
        "ee" + "字" * 9,
    ]


def test_the_rest_of_a_word_cut_in_two_is_not_lost() -> None:
    limits = SegmentationLimits(characters=10)
    assert segmented("a" * 12, limits=limits) == ["a" * 10, "aa"]


def test_an_endless_run_without_letters_is_dropped_not_kept() -> None:
    segmenter = SentenceSegmenter(SegmentationLimits(characters=10))
    assert segmenter.feed("-" * 1000) == []
    assert segmenter.feed("好。") == ["好。"]


def test_limits_are_of_the_users_choice() -> None:
    limits = SegmentationLimits(first_clause=2, shortest=1)
    assert segmented("好的，来吧。嗯。行。", limits=limits) == ["好的，", "来吧。", "嗯。", "行。"]


@pytest.mark.parametrize("limit", ["first_clause", "shortest", "clause_bound", "characters"])
def test_a_limit_is_positive(limit: str) -> None:
    with pytest.raises(ValueError, match=limit):
        SegmentationLimits(**{limit: 0})


def test_a_new_reply_may_follow_a_flush() -> None:
    segmenter = SentenceSegmenter()
    assert segmenter.feed("“你好呀。我来查一下") == ["“你好呀。"]
    assert segmenter.flush() == ["我来查一下"]
    assert segmenter.flush() == []
    assert segmenter.feed("今天天气不错，") == ["今天天气不错，"]


@given(st.lists(TELLING, max_size=40).map("".join), st.integers(1, 7))
@example("“嗯…”。.A”,1 b", 1)
def test_how_a_reply_is_split_does_not_matter(reply: str, size: int) -> None:
    pieces = [reply[start : start + size] for start in range(0, len(reply), size)]
    assert segmented(*pieces) == segmented(reply)


@given(
    st.lists(TELLING, max_size=60).map("".join),
    st.sampled_from(
        [SegmentationLimits(), SegmentationLimits(clause_bound=6, hard_bound=9, first_clause=2)]
    ),
)
def test_nothing_is_lost_or_invented(reply: str, limits: SegmentationLimits) -> None:
    sentences = segmented(reply, limits=limits)
    spoken, written = ("".join(text.split()) for text in ("".join(sentences), reply))
    assert written.startswith(spoken)
    assert not any(map(str.isalnum, written[len(spoken) :]))
    for sentence in sentences:
        assert sentence == sentence.strip()
        assert any(map(str.isalnum, sentence))


@given(st.lists(TELLING, max_size=200).map("".join))
def test_lengths_are_bounded(reply: str) -> None:
    limits = SegmentationLimits(clause_bound=6, hard_bound=9, characters=20)
    assert all(len(sentence) <= 20 for sentence in segmented(reply, limits=limits))


@pytest.mark.parametrize(
    "part", ["你好，", "hello world. ", "1. ", "a", "a,", ".", ",.", "“", "……”", " ", "\n"]
)
def test_what_is_held_and_looked_back_at_is_bounded(part: str) -> None:
    limits = SegmentationLimits()
    segmenter = SentenceSegmenter(limits)
    for char in part * (5_000 // len(part)):
        segmenter.feed(char)
        assert len(segmenter._pending) < limits.characters


def test_a_large_piece_takes_the_time_of_many_small_ones() -> None:
    def seconds(count: int) -> float:
        begin = process_time()
        segmented("你好，hello world. " * count)
        return process_time() - begin

    # A copy of the rest per sentence would take 400 times as long.
    assert seconds(10_000) < 100 * max(seconds(500), 0.005)
