"""Keeps what a reasoning model thinks aloud out of its reply.

Qwen3, DeepSeek-R1 and their kin write `<think>…</think>` before the answer where
the server does not move it into `reasoning_content`.
"""

from __future__ import annotations

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkFilter:
    """Removes `<think>…</think>` from text that comes in pieces cut anywhere."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._stripping = False

    def feed(self, text: str) -> str:
        """The part of the text so far that is certainly reply and was not given before."""
        self._held += text
        spoken: list[str] = []
        while True:
            tag = _CLOSE if self._thinking else _OPEN
            before, found, after = self._held.partition(tag)
            if not found:
                break
            if not self._thinking:
                spoken.append(self._strip(before))
            self._stripping = self._stripping or self._thinking
            self._thinking = not self._thinking
            self._held = after
        keep = _length_of_tag_begun(self._held, tag)
        certain, self._held = (
            self._held[: len(self._held) - keep],
            self._held[-keep:] if keep else "",
        )
        if not self._thinking:
            spoken.append(self._strip(certain))
        return "".join(spoken)

    def close(self) -> str:
        """What was held back as the possible beginning of a tag; nothing while thinking."""
        held, self._held = self._held, ""
        return "" if self._thinking else self._strip(held)

    def _strip(self, text: str) -> str:
        """Without the empty lines that separate thoughts from the reply."""
        if self._stripping:
            text = text.lstrip()
            self._stripping = not text
        return text


def _length_of_tag_begun(text: str, tag: str) -> int:
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if tag.startswith(text[-n:])), 0)
