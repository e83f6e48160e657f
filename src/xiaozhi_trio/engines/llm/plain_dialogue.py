"""A dialogue for models that do not call tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.engines.protocols import ChatMessage

if TYPE_CHECKING:
    from collections.abc import Sequence


def plain_dialogue(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The dialogue with the results of tools told by the user, in brackets.

    Another model of a chain may have called them. Chat templates want user and
    assistant to alternate, so what would be two messages of the user is one.
    """
    names = {call.id: call.name for message in messages for call in message.calls}
    plain: list[ChatMessage] = []
    for message in messages:
        if message.role == "tool":
            result = f"[{names.get(message.call_id, 'tool')}: {message.content}]"
            _add(plain, ChatMessage("user", result))
        elif message.calls and not message.content:
            continue
        else:
            _add(plain, ChatMessage(message.role, message.content))
    return plain


def _add(plain: list[ChatMessage], message: ChatMessage) -> None:
    if plain and plain[-1].role == message.role == "user":
        message = ChatMessage("user", f"{plain.pop().content}\n{message.content}")
    plain.append(message)
