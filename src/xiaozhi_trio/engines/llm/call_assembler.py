"""Tool calls out of the pieces in which OpenAI-compatible servers stream them.

A call's name comes first and its arguments follow, cut anywhere. Several calls are
told apart by `index`; where a server leaves it out, or gives the same to all (as
Gemini does), each call comes with an id or a name of its own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Final

import attrs

from xiaozhi_trio.engines.protocols import ToolCall

MOST_CALLS: Final = 32
"""Calls of one reply that are taken."""
MOST_CHARACTERS: Final = 65_536
"""Arguments of all calls of one reply together; what is longer is cut, and so no JSON."""
_LONGEST_NAME: Final = 64
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""What servers do not take in a name; a model may write a name of its own making."""
_LONGEST_ID: Final = 256


@attrs.define
class _Draft:
    """A call whose arguments are still coming."""

    index: int | None
    id: str
    name: str
    arguments: str = ""


class CallAssembler:
    """The calls of one reply."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._room = MOST_CHARACTERS

    def feed(self, pieces: object) -> None:
        """Take the member `tool_calls` of a delta or a message; what is no call is ignored."""
        if not isinstance(pieces, list):
            return
        for piece in pieces:
            function = piece.get("function") if isinstance(piece, Mapping) else None
            if isinstance(function, Mapping):
                self._take(piece, function)

    def finish(self) -> list[ToolCall]:
        """The calls, in the order in which they began."""
        return [
            ToolCall(draft.id or f"call_{secrets.token_hex(8)}", draft.name, draft.arguments)
            for draft in self._drafts
        ]

    def _take(self, piece: Mapping[str, object], function: Mapping[str, object]) -> None:
        index, call_id = piece.get("index"), _text(piece.get("id"))[:_LONGEST_ID]
        name = _FOREIGN.sub("_", _text(function.get("name"))[:_LONGEST_NAME])
        draft = self._going_on(index, call_id, name)
        if draft is None:
            if not name or len(self._drafts) == MOST_CALLS:
                return
            draft = _Draft(index if isinstance(index, int) else None, call_id, name)
            self._drafts.append(draft)
        added = _text(function.get("arguments"))[: self._room]
        self._room -= len(added)
        draft.arguments += added

    def _going_on(self, index: object, call_id: str, name: str) -> _Draft | None:
        """The call that a piece belongs to; None where it begins one."""
        if isinstance(index, int):
            fits = [draft for draft in self._drafts if draft.index == index]
        else:
            fits = [] if name and not call_id else self._drafts
        if not fits:
            return None
        draft = fits[-1]
        return None if call_id and name and call_id != draft.id else draft


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
