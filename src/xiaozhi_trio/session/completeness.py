"""Whether what was said so far sounds finished, by its words.

Recognisers put marks by habit: Whisper closes nearly everything with a full stop. So a
full stop never outweighs words that cannot end a sentence, and makes one complete only
where there are words enough; a question mark is trusted, for it is put by the words
before it. Without any mark, only question particles and answers of one word are complete.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import regex

from xiaozhi_trio.session.bare_text import bare, words_of
from xiaozhi_trio.session.script import is_cjk


class Completeness(Enum):
    """What the words say about the end of a turn."""

    COMPLETE = auto()
    """Nothing is missing: the wait may be shorter."""
    OPEN = auto()
    """More is coming: the wait should be longer."""
    UNKNOWN = auto()


_FEWEST_WORDS: Final = 3
"""English words from which on a full stop is believed."""
_FEWEST_CHARACTERS: Final = 4
"""The same in Chinese."""
_DICTATED: Final = 3
"""Single digits in a row that are a number being dictated rather than an amount."""
_MOBILE_DIGITS: Final = 11
"""Length of a Chinese mobile number, which is complete then."""

_OPEN_MARK = regex.compile(r"(?:[,，、:：;；—–-]|…|⋯|\.{2,})[\s\"'”’]*\Z")
_QUESTION_MARK = regex.compile(r"[?？][\s\"'”’]*\Z")
_END_MARK = regex.compile(r"[.。!！][\s\"'”’]*\Z")

_ALWAYS_OPEN: Final = frozenset(
    # Hesitations and conjunctions, whatever mark was put behind them.
    "uh uhh um umm uhm er err erm hm hmm "
    "and or but because cuz if unless until although whereas whether than".split()
)
_OPEN_WORDS: Final = frozenset(
    # Prepositions, articles, possessives and subjects. Words that also end sentences
    # ("on", "in", "her", "is", "so", "though") are not here.
    "of to from with without for into onto at by about between among towards via "
    "a an the my your our their its every i we they he she very quite lets".split()
)
_OPEN_CONTRACTION = regex.compile(r"(?i)\b(?:i|you|he|she|we|they|it)['’](?:m|re|ll|d|ve)[.]?\Z")
_OPEN_CHINESE = regex.compile(
    r"(?:然后|所以|因为|但是|可是|不过|而且|并且|或者|还是|如果|要是|假如|虽然|尽管|既然|除非|以及"
    r"|比如|比如说|例如|比方说|包括|关于|根据|为了|由于|按照|就是|就是说|的话|的时候|我想|我要|我想要"
    r"|我想问|帮我|请你|麻烦你|能不能|可不可以|是不是|应该|和|跟|与|及|把|被|从|向|往|嗯|呃|额|唔"
    r"|(?<=.)(?<![不也都就还])是)\Z"
)
_FILLER_PHRASE = regex.compile(
    r"(?:\A|[，,。\s])(?:那个|这个|那个什么|那什么|那个啥|那啥|you know|i mean|like)\W*\Z", regex.I
)
_WANTED_THING = regex.compile(
    r"(?<![不别没])(?<![不别没].)(?:想要|要|想|给我|帮我|放|播|播放|听|查|找|问|说|讲|买|点|来|换|把|用|打开|关掉"
    r"|关上|一下|一首|一个|然后|还有|嗯|呃|额|唔)(?:那个|这个|那种|那个什么|那什么|那个啥|那啥)\Z"
)
"""Something is asked for whose name is still looked for: who talks to a loudspeaker has nothing to
point at. Verbs of looking are not here, for where there is a camera there is."""
_BEGINS_OPEN = regex.compile(
    r"\s*+(?:如果|要是|假如|虽然|尽管|因为|既然|除非|当[^，,]{1,20}的时候"
    r"|(?:if|because|although|unless)\b)[^，,]{1,40}\Z",
    regex.I,
)
_CHINESE_QUESTION = regex.compile(
    r"[吗呢]\Z|(?:什么|哪里|哪儿|谁|几点|几号|多少|多大|多远|多久|怎么样|怎么办|为什么|好不好|行不行"
    r"|对不对|可以吗)\Z"
)
_WHOLE_ANSWERS: Final = frozenset(
    "yes no stop okay ok thanks thankyou yesplease nothanks goodbye bye hello nevermind goon "
    "是 是的 不 不是 不要 不用 不用了 好 好的 好啊 行 可以 对 对的 没有 有 "
    "停 停止 停下 谢谢 再见 拜拜 继续 算了 你好".split()
)

_NUMBER_WORDS: Final = "零〇一幺二两三四五六七八九"
_ENGLISH_DIGITS = "zero|oh|one|two|three|four|five|six|seven|eight|nine"
_FINAL_DIGITS = regex.compile(
    rf"(?i)(?:(?:[0-9{_NUMBER_WORDS}]|\b(?:{_ENGLISH_DIGITS})\b)[\s,，.。-]*+)++\Z"
)
_DIGIT = regex.compile(rf"(?i)[0-9{_NUMBER_WORDS}]|{_ENGLISH_DIGITS}")
_DICTATION = regex.compile(
    r"(?i)号码|电话|手机|密码|验证码|邮编|账号|卡号|编号|\b(?:number|phone|code|password|pin|zip)\b"
)


def completeness(text: str) -> Completeness:
    """What the words of `text` say about whether the speaker has done; Chinese and English.

    OPEN after a hesitation (also 那个 after a verb that wants a thing), conjunction,
    preposition, article or trailing comma, in a condition whose consequence has not come,
    and in a number being dictated: digits at the end, where a number or code is talked
    about or three or more stand alone. An amount at the end ("volume to 50") is UNKNOWN.
    Other languages are COMPLETE or UNKNOWN by their marks.
    """
    text = text.strip()
    words = words_of(text)
    if not words:
        return Completeness.UNKNOWN
    if words[-1] in _ALWAYS_OPEN or _OPEN_MARK.search(text) or _FILLER_PHRASE.search(text):
        return Completeness.OPEN
    if _QUESTION_MARK.search(text):
        return Completeness.COMPLETE
    if (digits := _dictated(text)) is not None:
        return digits
    letters = bare(text)
    if letters in _WHOLE_ANSWERS:
        return Completeness.COMPLETE
    if _is_open(text, words[-1], letters):
        return Completeness.OPEN
    if _CHINESE_QUESTION.search(letters):
        return Completeness.COMPLETE
    return Completeness.COMPLETE if _is_closed(text, words) else Completeness.UNKNOWN


def _is_open(text: str, last: str, letters: str) -> bool:
    return (
        last in _OPEN_WORDS
        or _OPEN_CHINESE.search(letters) is not None
        or _WANTED_THING.search(letters) is not None
        or _OPEN_CONTRACTION.search(text) is not None
        or (_BEGINS_OPEN.match(text) is not None and not _CHINESE_QUESTION.search(letters))
    )


def _is_closed(text: str, words: list[str]) -> bool:
    if not _END_MARK.search(text) or words[-1].isdigit():
        return False
    fewest = _FEWEST_CHARACTERS if is_cjk(words[-1][0]) else _FEWEST_WORDS
    return len(words) >= fewest


def _dictated(text: str) -> Completeness | None:
    """What a row of digits at the end says, None where there is none being dictated."""
    final = _FINAL_DIGITS.search(text)
    if final is None:
        return None
    count = len(_DIGIT.findall(final[0]))
    is_mobile = count == _MOBILE_DIGITS
    if is_mobile:
        return Completeness.COMPLETE
    if _DICTATION.search(text) or (count >= _DICTATED and not _is_one_number(final[0])):
        return Completeness.OPEN
    return None


def _is_one_number(run: str) -> bool:
    """Whether the digits are written together, as a recogniser writes an amount or a year."""
    return regex.fullmatch(r"[0-9.,]{1,4}\W*", run) is not None
