"""The faces a device can show, and the emoji a language model writes to ask for one.

Names and emoji are those of the firmware's font (78/xiaozhi-fonts, `font_emoji.py`).
Unknown names are never fatal, but an LCD then keeps its previous face
(`display/lcd_display.cc`), so that nothing but these names is sent.

Which characters are emoji, and how they combine, is Unicode Technical Standard #51.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import regex

if TYPE_CHECKING:
    from collections.abc import Mapping


class Emotion(StrEnum):
    """A face; the value is its name in an `llm` message."""

    NEUTRAL = "neutral"
    HAPPY = "happy"
    LAUGHING = "laughing"
    FUNNY = "funny"
    SAD = "sad"
    ANGRY = "angry"
    CRYING = "crying"
    LOVING = "loving"
    EMBARRASSED = "embarrassed"
    SURPRISED = "surprised"
    SHOCKED = "shocked"
    THINKING = "thinking"
    WINKING = "winking"
    COOL = "cool"
    RELAXED = "relaxed"
    DELICIOUS = "delicious"
    KISSY = "kissy"
    CONFIDENT = "confident"
    SLEEPY = "sleepy"
    SILLY = "silly"
    CONFUSED = "confused"


EMOJI: Final[Mapping[Emotion, str]] = MappingProxyType(
    dict(zip(Emotion, "😶🙂😆😂😔😠😭😍😳😯😱🤔😉😎😌🤤😘😏😴😜🙄", strict=True))
)
"""The one character a language model writes for each emotion."""

_EMOTION_OF_EMOJI = {emoji: emotion for emotion, emoji in EMOJI.items()}

_JOINER = "\u200d"

# Signs such as © ↔ ‼ are text unless a variation selector asks for a picture; from the
# dingbats on, models write a bare ☀ or ❤ and mean the picture.
_PICTURE = (
    r"[\p{Emoji_Presentation}"
    r"||[[\p{Emoji}\p{Extended_Pictographic}]&&[\u2600-\u27BF\U0001F000-\U0001FFFF]]]"
)
_AS_PICTURE = r"[\p{Emoji}--[0-9#*]]\uFE0F"
_KEYCAP = r"[0-9#*]\uFE0F?\u20E3"
# Skin tones are pictures too; this is what never has a picture of its own.
_DECORATION = r"[\uFE0E\uFE0F\u20E3\U000E0000-\U000E007F]"

_FACE = regex.compile(
    rf"(?V1)(?P<first>{_PICTURE})(?:\p{{Emoji_Modifier}}|{_DECORATION})*+"
    rf"(?P<joined>{_JOINER}++(?:{_AS_PICTURE}|{_PICTURE})(?:\p{{Emoji_Modifier}}|{_DECORATION})*+)*+"
)
_ONE = rf"{_JOINER}*+(?:{_KEYCAP}|{_AS_PICTURE}|{_PICTURE}|{_DECORATION})"
_RUN = regex.compile(
    rf"(?V1)(?<!{_JOINER})(?:{_ONE})++{_JOINER}*+(?:\s*+(?:{_ONE})++{_JOINER}*+)*+\s*+"
)
_INVISIBLE_RUN = regex.compile(rf"(?V1)(?:{_DECORATION}|{_JOINER}|\s)++")
_NOT_SPACE = regex.compile(r"\S++")

_CLINGS_TO_THE_LEFT = frozenset(".,;:!?)]}…。，、；：！？）】》」』”’")
_WIDE_PAUSES = frozenset("。，、；：！？…")


def emotion_of(name: str) -> Emotion:
    """The emotion of that name, whatever its case; `NEUTRAL` for a name no device knows."""
    try:
        return Emotion(name.strip().lower())
    except ValueError:
        return Emotion.NEUTRAL


def first_emotion(text: str) -> Emotion | None:
    """The emotion of the first emoji in `text` that stands for one, or None.

    Variation selectors and skin tones do not matter. A joined sequence is an emoji of
    its own: 😶 joined with fog is a face in the clouds, not the neutral one.
    """
    for face in _FACE.finditer(text):
        emotion = _EMOTION_OF_EMOJI.get(face["first"])
        if emotion is not None and face["joined"] is None:
            return emotion
    return None


def without_emoji(text: str) -> str:
    """`text` without any emoji, also those that stand for no emotion, and without loose ends.

    Flags, keycaps, skin tones, joined sequences and stray selectors go as a whole. The
    white space around them becomes what a writer would have put there; at the ends of
    the text and before a closing mark that is none.
    """
    kept: list[str] = []
    end = 0
    for run in _RUN.finditer(text):
        before = text[end : run.start()]
        end = run.end()
        spaces = _NOT_SPACE.sub("", run[0])
        if _INVISIBLE_RUN.fullmatch(run[0]):
            kept += before, spaces
            continue
        left = before.rstrip()
        spaces = before[len(left) :] + spaces
        # What lies between two runs never is white space only, so that an empty left
        # side means the beginning of the text.
        kept += left, _gap(left[-1:], spaces, text[end : end + 1])
    kept.append(text[end:])
    return "".join(kept)


def _gap(left: str, spaces: str, right: str) -> str:
    """What stands between `left` and `right` once the emoji between them is gone."""
    if not left or not right or right in _CLINGS_TO_THE_LEFT:
        return ""
    if "\n" in spaces:
        return "\n" * min(spaces.count("\n"), 2)
    if spaces:
        return "" if left in _WIDE_PAUSES else " "
    if _is_wide(left) or _is_wide(right) or not right.isalnum():
        return ""
    return " " if left.isalnum() or left in _CLINGS_TO_THE_LEFT else ""


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"
