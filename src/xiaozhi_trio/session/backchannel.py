"""Sounds by which a listener says "go on": no reason to stop speaking.

What they are in conversation is told by Clancy et al., "The conversational use of reactive
tokens in English, Japanese, and Mandarin" (Journal of Pragmatics 26, 1996). The words listed
here were chosen by hand, not counted in a corpus.
"""

from __future__ import annotations

from typing import Final

from xiaozhi_trio.session.bare_text import words_of

_ENGLISH: Final = frozenset(
    # In the spellings of recognisers. "Well", "but" and "so" take the floor and are not here.
    "uhhuh mmhmm mmhm mhm mhmm mm mmm hmm hm uh um huh yeah yep yup yes okay ok right sure oh ah "
    "aha wow really isee igotit gotit ofcourse exactly alright nice cool great good true".split()
)
_LONGEST_PHRASE: Final = 3
_CHINESE: Final = frozenset(
    # 嗯, 对, 是, 好 with their particles; some Japanese and Korean.
    "嗯 哦 噢 喔 啊 呀 哎 诶 欸 唔 哈 哇 对 是 好 行 对啊 对呀 对的 对吧 是啊 是呀 是的 "
    "是吗 是吧 好的 好吧 "
    "好呀 好啊 好嘞 行吧 行啊 没错 这样 这样啊 原来如此 原来是这样 知道了 明白 明白了 了解 "
    "真的 真的吗 "
    "可以 不错 有道理 哈哈 嘿嘿 当然 懂了 うん はい へえ そう なるほど 응 네 예 그래".split()
)
_LONGEST_CHINESE: Final = max(map(len, _CHINESE))
_MOST_WORDS: Final = 6
"""Characters in Chinese. Who goes on for longer wants to be heard, whatever the words."""


def is_backchannel(text: str) -> bool:
    """Whether all of `text` only tells the speaker to go on: 嗯, 对对, "uh-huh", "yeah, right".

    Questions and objections are not (等一下, 不对, "stop", "no"), nor is text without a word.
    It is meant for what is said into a reply; the same words answer a question.
    """
    words = words_of(text)
    if not words or len(words) > _MOST_WORDS:
        return False
    return _consists_of_backchannels(words)


def _consists_of_backchannels(words: list[str]) -> bool:
    longest = max(_LONGEST_PHRASE, _LONGEST_CHINESE)
    reached = {0}
    for end in range(1, len(words) + 1):
        for start in range(max(0, end - longest), end):
            if start in reached and _is_one("".join(words[start:end])):
                reached.add(end)
                break
    return len(words) in reached


def _is_one(phrase: str) -> bool:
    return phrase in _ENGLISH or phrase in _CHINESE
