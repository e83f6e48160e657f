"""Taking Markdown, HTML and LaTeX out of one sentence of a reply.

A sentence cut from a stream may hold half of a pair (`**`, `[…](`), so that marks are
judged one by one, which a CommonMark parser cannot do; it would also leave the emphasis
that CommonMark does not see next to Chinese punctuation.

Passages over many sentences (code blocks, thoughts) are the business of
`xiaozhi_trio.session.unspoken`; those within one sentence are left out here too.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

import regex

from xiaozhi_trio.session.script import is_cjk
from xiaozhi_trio.session.unspoken import UnspokenFilter

if TYPE_CHECKING:
    from collections.abc import Iterable

_ENTITY = regex.compile(r"(?i)&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});")
_LINE_BREAK = regex.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# Joiners belong to words in Persian and Indic scripts. All else without a shape of its own
# goes, and with it what cannot be encoded (surrogates) and what turns the text around.
_SHAPELESS = regex.compile(
    r"(?V1)[\p{C}--[\n\t\u200C\u200D]]"
    r"|(?<![\p{L}\p{M}])[\u200C\u200D]|[\u200C\u200D](?![\p{L}\p{M}])"
)
_BREAKING_TAG = regex.compile(r"(?i)</?(?:br|p|div|li|ul|ol|tr|td|th|h[1-6])(?:\s[^<>]*+)?/?>")

_FENCE = regex.compile(r"\s*+`{3,}+\s*+[A-Za-z0-9+#.-]*+\s*+")
_RULE = regex.compile(r"[\s|:=*_~+-]*+")
_LINE_MARKS = regex.compile(
    r"(?:\s*+(?:\#{1,6}(?=\s)|\#{2,6}|>++|[-*+•▪◦‣](?=\s)|\[[ xX]\](?=\s)))*+\s*+"
)
_ITEM_NUMBER = regex.compile(r"([0-9]{1,3})(?:[.．)](?:\s++|(?=\p{Han}))|[、）]\s*+)(?=\S)")
_PAUSES: Final = frozenset("。！？；：，、…—.!?;:,")
_CLOSERS: Final = "”’\"'）)]】」』"

_AUTOLINK = regex.compile(r"(?i)<(?:mailto:)?([^<>\s@/]++@[^<>\s]++|https?://[^<>\s]++)>")
_TAG = regex.compile(r"</?[A-Za-z][\w:.-]*+(?:\s[^<>]*+)?/?>")
_CITATION = regex.compile(r"【[^【】†]*+†[^【】]*+】|\[\^[^\[\]\s]*+\]")
_LINK = regex.compile(
    r"!?\[([^\[\]]*+)\]"
    r"\(\s*+[^()\s]*+(?:\([^()\s]*+\)[^()\s]*+)*+(?:\s++(?:\"[^\"]*+\"|'[^']*+'))?\s*+(?:\)|\Z)"
)
_LINK_TAIL = regex.compile(r"\]\([^()\s]*+\)?")
_URL = regex.compile(r"(?i)(?<![A-Za-z0-9])(?:(?:https?|ftp|wss?)://|www\.)[!-~]*+")
_HOST = regex.compile(r"(?i)(?:[a-z]++://)?(?:[^/?#@]*+@)?(?:www\.)?([^/?#:@]*+)")

_MATH = regex.compile(
    r"\$\$([^$]*+)\$\$|\$(?=\S)([^$\n]*+)(?<=\S)\$(?!\d)"
    r"|\\\((.{0,200}?)\\\)|\\\[(.{0,200}?)\\\]",
    regex.DOTALL,
)
_MATH_MARK = regex.compile(r"\$\$|\\[()\[\]]|\$(?=[A-Za-z\\])")
_FRACTION = regex.compile(r"\\[dt]?frac\{([^{}]*+)\}\{([^{}]*+)\}")
_COMMAND = regex.compile(r"\\([A-Za-z]++)")
_THIN_SPACE = regex.compile(r"\\[,;:! ]")
_SIGNS: Final = {
    "times": "×",
    "cdot": "·",
    "div": "÷",
    "pm": "±",
    "sqrt": "√",
    "approx": "≈",
    "le": "≤",
    "leq": "≤",
    "ge": "≥",
    "geq": "≥",
    "neq": "≠",
    "left": "",
    "right": "",
    "text": "",
    "mathrm": "",
    "mathbf": "",
}

_ESCAPE = regex.compile(r"\\([!-/:-@\[-`{-~])")
_STRUCK = regex.compile(r"~~([^~\n]++)~~")
# A star between numbers or spaces multiplies; an underscore within a word belongs to it.
_EMPHASIS = regex.compile(
    r"`++|\*{2,}+|(?<![\s\d])\*|\*(?![\s\d])|(?<![^\W_])_++|_++(?![^\W_])|(?<=~)~++"
)


def without_markup(sentence: str, *, aloud: bool = False) -> str:
    """The plain text of `sentence`, in one line, without control characters.

    Lines and table cells that end without a mark get a comma. With `aloud` the numbers
    of list items get one too, and web addresses are named by their host.
    """
    text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), sentence)
    text = _SHAPELESS.sub("", _LINE_BREAK.sub("\n", text))
    unspoken = UnspokenFilter()
    text = _BREAKING_TAG.sub("\n", unspoken.feed(text) + unspoken.flush())
    text = _MATH_MARK.sub("", _MATH.sub(_formula, text))
    lines = (_plain_line(line, aloud=aloud) for line in text.split("\n"))
    return " ".join(joined_by_pauses(lines).split())


def joined_by_pauses(parts: Iterable[str]) -> str:
    """The parts that are not empty, a comma between them where no mark is."""
    joined: list[str] = []
    last = ""
    for part in parts:
        if not part:
            continue
        if joined:
            joined.append(_pause_between(last, part[0]))
        joined.append(part)
        last = (part.rstrip(_CLOSERS) or part)[-1]
    return "".join(joined)


def _pause_between(left: str, right: str) -> str:
    if left in _PAUSES:
        return " " if left.isascii() else ""
    return "，" if is_cjk(left) or is_cjk(right) else ", "


def _plain_line(line: str, *, aloud: bool) -> str:
    """A line without markup, as a heading, item, quotation, row or rule and within."""
    if _FENCE.fullmatch(line) or _RULE.fullmatch(line):
        return ""
    line = _inline(_LINE_MARKS.sub("", line, count=1), aloud=aloud).strip()
    number = _ITEM_NUMBER.match(line)
    if aloud and number is not None:
        line = joined_by_pauses((number[1], line[number.end() :]))
    if line.startswith("|") or line.endswith("|"):
        line = joined_by_pauses(cell.strip() for cell in line.split("|"))
    return line


def _inline(text: str, *, aloud: bool) -> str:
    text = _TAG.sub("", _AUTOLINK.sub(r"\1", text))
    # Two rounds, for an image that is the text of a link.
    text = _LINK.sub(r"\1", _LINK.sub(r"\1", _CITATION.sub("", text)))
    text = _LINK_TAIL.sub(" ", text)
    if aloud:
        text = _URL.sub(_host, text)
    text = _STRUCK.sub(r"\1", _ESCAPE.sub(r"\1", text))
    return _EMPHASIS.sub("", text)


def _host(url: regex.Match[str]) -> str:
    address = url[0].rstrip(".,;:!?)]}'\"*_")
    host = _HOST.match(address)
    return (host[1] if host else "") + url[0][len(address) :]


def _formula(math: regex.Match[str]) -> str:
    formula = next(group for group in math.groups() if group is not None)
    formula = _FRACTION.sub(r"\1/\2", _THIN_SPACE.sub(" ", formula))
    formula = _COMMAND.sub(lambda command: _SIGNS.get(command[1], command[1] + " "), formula)
    return formula.replace("{", "").replace("}", "")
