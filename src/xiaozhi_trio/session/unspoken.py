"""Leaving out of a streamed reply what is written for machines or for the eye only.

Code blocks, the thoughts of a reasoning model, tool calls that a model writes as text
and its control tokens span many sentences, so that they are taken out before the reply
is cut into sentences. Where such a passage is never closed, the rest of the reply goes
with it: it is code, thoughts or arguments still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import regex

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAGS: Final = (
    "think|thinking|thought|reasoning|tool_calls?|tool_response|function_calls?|function"
    "|script|style"
)
# A fence opens a line of its own or ends one; on one line with its end it is inline code,
# which is spoken. Every part has a bound, so that what is held back has one too; and none
# can contain the beginning of another, so that the first to begin is the first to be found.
_OPENING = regex.compile(
    r"(?P<inline>`{3,16}[^`<\n]{1,120}`{1,16}+(?=[^`]))"
    r"|(?P<fence>`{3,16})(?P<info>[^`<\n]{0,120})\n"
    rf"|(?i:<(?P<tag>{_TAGS})\b(?:[^<>\n`/]|/(?!>)){{0,120}}>)"
    r"|(?P<comment><!--)"
    rf"|(?P<token>(?i:</(?:{_TAGS})>|<(?:{_TAGS})/>)|<[|｜][^<>`|｜\n]{{1,60}}[|｜]>)"
)
_COMMENT_END = regex.compile("-->")
_PROSE: Final = frozenset({"markdown", "md", "plain", "plaintext", "text", "txt"})
"""Fences that small models put around a whole answer; what is in them is spoken."""


class UnspokenFilter:
    """A reply without its code blocks, thoughts, tool calls and control tokens.

    What comes out does not depend on how the reply was split into pieces. No more than
    some hundred characters are held back, and only where a passage may begin or end.
    """

    def __init__(self) -> None:
        self._begin()

    def feed(self, piece: str) -> str:
        """Take the next piece of the reply, of any size; give what can be spoken of it by now."""
        return "".join(self._sift(self._held + piece))

    def flush(self) -> str:
        """The reply ends here: give what was held back. The next piece begins a new reply."""
        rest = self._held if self._closing is None else ""
        self._begin()
        return rest

    def _begin(self) -> None:
        self._held = ""
        self._closing: regex.Pattern[str] | None = None
        """What ends the passage that the reply is in."""
        self._aloud = True
        """Whether the text up to there is spoken."""

    def _sift(self, text: str) -> Iterator[str]:
        position = 0
        while True:
            found = (self._closing or _OPENING).search(text, position, partial=True)
            end = len(text) if found is None else found.start()
            if self._aloud:
                yield text[position:end]
            if found is None or found.partial:
                self._held = text[end:]
                return
            position = found.end()
            if self._closing is not None:
                self._closing, self._aloud = None, True
            elif found["inline"]:
                yield found[0]
            elif not found["token"]:
                self._enter(found)

    def _enter(self, opening: regex.Match[str]) -> None:
        if opening["fence"]:
            self._closing = regex.compile("`" * len(opening["fence"]))
            self._aloud = opening["info"].strip().lower() in _PROSE
        elif opening["tag"]:
            self._closing = regex.compile(rf"(?i)</{opening['tag']}\s{{0,8}}>")
            self._aloud = False
        else:
            self._closing = _COMMENT_END
            self._aloud = False
