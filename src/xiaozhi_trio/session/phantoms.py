"""Words that a recogniser invents where nobody spoke.

Three families of them are known. Subtitles of the videos that Whisper learned from, made
up on silence and noise in any language: "Thanks for watching", 字幕由 Amara.org, 请不吝点赞
(openai/whisper discussion 679; amicalhq/amical 71 and Vexa-ai/vexa 617 for
Japanese, Turkish and others; PocketShell-io/pocketshell 452 for Korean). Short words: "you",
"Thank you.", "Okay", 嗯 (woheller69/whisperIME 57, xinnan-tech/xiaozhi-esp32-server 2402
and 2708). And loops, a word or sentence said over and over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import regex

from xiaozhi_trio.session.bare_text import bare, words_of
from xiaozhi_trio.session.script import is_cjk

if TYPE_CHECKING:
    from collections.abc import Collection

ENOUGH_VOICE_MS: Final = 220
"""Voice from which on a short word is believed: 好 and 对 of a synthesizer had 256."""
VOICE_MS_A_SYLLABLE: Final = 110
"""The same for each syllable of it: 谢谢 had 576, "Thank you." 480."""
LEAST_VOICE_MS_A_SYLLABLE: Final = 45
"""Twenty-two syllables a second, which nobody speaks, even where the detector misses half."""

_REPEATED_MS: Final = 200
"""Voice that each of the same words takes: four times "no" in 0.5 s was not said."""
_REPEATS: Final = 4
"""Times in a row from which on that is asked for."""
_MOST_REPEATS: Final = 8
"""As many times in a row a person may say the same word: a row of zeros."""
_SUBTITLES = regex.compile(
    # Titles and thanks at the end of videos, in text without case, marks and spaces.
    r"(?:thanks|thankyou)(?:somuch|verymuch|all|guys)?for(?:watching|joiningus)|amaraorg"
    r"|subtitl(?:es|ed|ing)by|captions?by|transcri(?:bed|ption)by|likeandsubscribe"
    r"|pleasesubscribe|(?:dont|not)forgetto(?:like|subscribe).*|seeyou(?:guys)?inthenextvideo"
    r"|opensubtitles|bfwatchtv"
    r"|谢谢(?:大家)?(?:的)?(?:观看|收看)|感谢(?:您|大家|各位)?(?:的)?(?:观看|收看|收听)"
    r"|[請请]不吝.*|点赞订阅|點贊訂閱|点赞转发|订阅转发打赏|打赏支持|明镜与点点|明鏡與點點"
    r"|字幕(?:志愿者|志願者|制作|製作|提供|组|組|by|由).*|(?:中文|简体|繁體)字幕|優優獨播劇場"
    r"|优优独播剧场.*|下(?:期|集|个视频)再见|詞曲李宗盛|词曲李宗盛"
    r"|ご視聴.*|ご覧いただき.*|チャンネル登録|次の動画で"
    r"|시청해주셔서.*|구독과좋아요|다음영상에서|한글자막"
    r"|abonneolmayi|izlediginiz|altyazi|untertitel(?:ung|der|imauftrag|von).*|zdfdigital"
    r"|soustitr.*|mercidavoirregard|subtítulos(?:por|realizados).*|graciasporver"
    r"|sottotitoli(?:creati|acura|e)|legendas?(?:por|pela)|спасибозапросмотр|субтитры"
    r"|редакторсубтитров.*|продолжениеследует|napisy(?:stworzone|by|pl)|dziękizaogląda"
)
_WHOLE: Final = frozenset(
    # All of the text. Longer ones that could be said to a device in earnest are not here.
    "you bye so the uh um hmm hm mm oh ah huh mhm ok okay thankyou thanks thankyouverymuch "
    "thankyousomuch byebye yeah yes right hello hi i a and but well "
    "嗯 嗯嗯 啊 哦 噢 呃 额 唉 哎 诶 欸 喂 好 对 是 我 你 他 的 了 哈 "
    "谢谢 谢谢大家 谢谢你 再见 拜拜 好的 "
    "はい うん ええ ん あ ありがとうございました おやすみなさい 네 예 응 감사합니다 "
    "ja nein danke vielendank oui merci si gracias grazie да спасибо røka".split()
)
_DESCRIPTION = regex.compile(
    r"\([^()]*+\)|\[[^\[\]]*+\]|（[^（）]*+）|【[^【】]*+】|\*[^*]*+\*|[♪♫]"
)
_FILLERS: Final = frozenset("uh um hmm hm mm mhm 嗯 嗯嗯 呃 额 ん you røka the a".split())
"""Those that ask for nothing even where somebody did say them."""
_LETTER = regex.compile(r"\p{L}")
_SCRIPTS: Final = tuple(
    (regex.compile(rf"[{letters}]"), frozenset(languages.split()))
    for letters, languages in (
        (r"\p{Hangul}", "ko"),
        (r"\p{Hiragana}\p{Katakana}", "ja"),
        (r"\p{Han}", "zh yue ja"),
        (r"\p{Cyrillic}", "ru uk bg sr mk be kk mn"),
        (r"\p{Arabic}", "ar fa ur"),
        (r"\p{Hebrew}", "he"),
        (r"\p{Greek}", "el"),
        (r"\p{Thai}", "th"),
        (r"\p{Devanagari}", "hi mr ne"),
    )
)
_LONGEST_LOOP: Final = 30
"""Words in the sentence that a loop repeats."""


def is_phantom(
    text: str,
    voiced_ms: int,
    *,
    language: str | None = None,
    expected: Collection[str] = (),
) -> bool:
    """Whether `text` is the recogniser's invention rather than what somebody said.

    `voiced_ms` is the voice that the detector found, `language` the language that the
    recogniser did (`Transcript.language`), and `expected` are the languages that are
    spoken at this device; none of them means any. The rule:

    * nothing but punctuation, a bracketed description of a sound ("(wind blowing)",
      "[Music]", ♪) and a language that is not expected are phantoms however long;
    * so are the subtitles of videos where they are a third of the text, a sentence three
      times in a row, and a word four times in less than `_REPEATED_MS` each;
    * sounds that ask for nothing (嗯, "um") and the stray "you" are phantoms below twice
      `ENOUGH_VOICE_MS`;
    * a word of the short list ("yes", 谢谢, "Okay") is one below `ENOUGH_VOICE_MS` and below
      `VOICE_MS_A_SYLLABLE` for each syllable: a real answer has as much voice, and with as
      much it is heard, for who answers "yes" and is ignored is annoyed more than who hears
      an answer to a cough; words that stop or change something ("stop", 停, "no", 不) are
      not on that list;
    * more text than `LEAST_VOICE_MS_A_SYLLABLE` allows for is not from this audio.
    """
    letters = bare(_DESCRIPTION.sub(" ", text))
    if not letters:
        return True
    if expected and is_foreign(text, language, expected):
        return True
    if _is_subtitle(letters) or is_loop(text) or voiced_ms < _voice_of_repeats(text):
        return True
    if letters in _FILLERS:
        return voiced_ms < 2 * ENOUGH_VOICE_MS
    if letters in _WHOLE:
        return voiced_ms < max(ENOUGH_VOICE_MS, VOICE_MS_A_SYLLABLE * _syllables(letters))
    return voiced_ms < LEAST_VOICE_MS_A_SYLLABLE * _syllables(letters)


def is_loop(text: str) -> bool:
    """Whether `text` is mostly one sentence three times in a row, or a word endlessly.

    Beginning or end may be something else. Twice is how people insist.
    """
    words = words_of(text)
    if any(_longest_run(words, size) > _MOST_REPEATS for size in (1, 2, 3)):
        return True
    longest = min(_LONGEST_LOOP, len(words) // 3)
    # A loop of less than half of the text is a refrain.
    return any(
        _longest_run(words, size) >= 3 and 6 * size > len(words) for size in range(4, longest + 1)
    )


def is_foreign(text: str, language: str | None, expected: Collection[str]) -> bool:
    """Whether `text` is in none of the `expected` languages, ISO 639-1.

    By `language` where the recogniser told it, and by the script: a recogniser that tells
    no language still writes Korean in hangul. Latin letters are in no language's way.
    """
    if language is not None and language not in expected:
        return True
    return any(
        len(letters.findall(text)) * 2 > len(_LETTER.findall(text))
        and languages.isdisjoint(expected)
        for letters, languages in _SCRIPTS
    )


def _is_subtitle(letters: str) -> bool:
    found = _SUBTITLES.search(letters)
    return found is not None and 3 * len(found[0]) >= len(letters)


def _voice_of_repeats(text: str) -> int:
    """Milliseconds of voice that the same word takes, said as often as it is in a row."""
    repeats = _longest_run(words_of(text), 1)
    return _REPEATED_MS * repeats if repeats >= _REPEATS else 0


def _longest_run(words: list[str], size: int) -> int:
    """How many times in a row `words` has the same `size` words, at most."""
    longest = same = 0
    for at in range(size, len(words)):
        same = same + 1 if words[at] == words[at - size] else 0
        longest = max(longest, same)
    return longest // size + 1


def _syllables(letters: str) -> float:
    """About how many; three letters of an alphabet are one."""
    return sum(1 if is_cjk(letter) or letter.isdigit() else 1 / 3 for letter in letters)
