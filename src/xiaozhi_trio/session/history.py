"""What was said so far, as the language model is reminded of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

import attrs

from xiaozhi_trio.engines.protocols import ChatMessage
from xiaozhi_trio.tools.toolbox import NO_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.config.settings import ConversationSettings


class History:
    """The dialogue of one session, bounded in messages and characters.

    Of the assistant's replies it holds what the user heard, not what was generated.
    """

    def __init__(self, settings: ConversationSettings) -> None:
        self._settings = settings
        # However short the memory, what the user says now has a place in it.
        self._messages: deque[ChatMessage] = deque(maxlen=max(1, settings.history_messages))

    @property
    def last_said(self) -> str:
        """The latest words of either side; empty at the beginning."""
        return self._messages[-1].content if self._messages else ""

    def user_said(self, text: str) -> None:
        self._add("user", text)

    def tools_answered(self, messages: Sequence[ChatMessage]) -> None:
        """Record calls of tools and their results, whatever was heard of the reply around them.

        They take half of the room at most, for one long result must not displace the
        dialogue that it is about: the longest are cut.
        """
        room = bound = self._settings.history_characters // 2
        kept = [_cut(message, bound) for message in messages]
        while bound and sum(map(_length, kept)) > room:
            bound //= 2
            kept = [_cut(message, bound) for message in messages]
        self._messages.extend(kept)
        self._shorten()

    def assistant_said(self, text: str) -> None:
        """Record what was heard of a reply; nothing heard is nothing recorded."""
        if text:
            self._add("assistant", text)

    def _add(self, role: Literal["user", "assistant"], text: str) -> None:
        text = text[: self._settings.history_characters]
        if self._messages and self._messages[-1].role == role and not self._messages[-1].calls:
            # Chat templates want the roles to alternate; an unheard reply leaves two in a row.
            text = f"{self._messages.pop().content}\n{text}"[-self._settings.history_characters :]
        self._messages.append(ChatMessage(role, text))
        self._shorten()

    def _shorten(self) -> None:
        while sum(map(_length, self._messages)) > self._settings.history_characters:
            self._messages.popleft()

    def dialogue(self, prompt: str, *, asked: str = "") -> list[ChatMessage]:
        """The prompt and the dialogue, beginning with a user's message and ending with `asked`.

        `asked` is not recorded: it may turn out that the user was not finished.
        """
        future = History(self._settings)
        future._messages.extend(self._messages)
        if asked:
            future.user_said(asked)
        messages = list(future._messages)
        # Nor may a result stand there whose call was forgotten.
        while messages and messages[0].role != "user":
            messages.pop(0)
        return [ChatMessage("system", prompt), *messages]


def _cut(message: ChatMessage, characters: int) -> ChatMessage:
    calls = tuple(
        # Half of a JSON object is none, and servers refuse a dialogue with such a call.
        call if len(call.arguments) <= characters else attrs.evolve(call, arguments=NO_ARGUMENTS)
        for call in message.calls
    )
    return attrs.evolve(message, content=message.content[:characters], calls=calls)


def _length(message: ChatMessage) -> int:
    return len(message.content) + sum(len(call.arguments) for call in message.calls)
