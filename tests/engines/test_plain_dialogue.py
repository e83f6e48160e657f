"""A dialogue with tools for a model that knows none."""

from __future__ import annotations

from xiaozhi_trio.engines.llm.plain_dialogue import plain_dialogue
from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall

CALL = ToolCall("1", "volume", "{}")


def lines(*messages: ChatMessage) -> list[str]:
    return [f"{message.role}: {message.content}" for message in plain_dialogue(messages)]


def test_a_dialogue_without_tools_stays_as_it_is() -> None:
    messages = [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Hi."),
        ChatMessage("assistant", "Hello."),
        ChatMessage("user", "Bye."),
    ]
    assert plain_dialogue(messages) == messages


def test_results_are_told_by_the_user() -> None:
    assert lines(
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "How loud?"),
        ChatMessage("assistant", "", (CALL,)),
        ChatMessage("tool", "70", call_id="1"),
        ChatMessage("assistant", "Seventy."),
    ) == ["system: Be brief.", "user: How loud?\n[volume: 70]", "assistant: Seventy."]


def test_words_before_a_call_stay() -> None:
    messages = plain_dialogue(
        [
            ChatMessage("user", "How loud?"),
            ChatMessage("assistant", "One moment.", (CALL,)),
            ChatMessage("tool", "70", call_id="1"),
            ChatMessage("tool", "on", call_id="gone"),
        ]
    )
    assert [f"{message.role}: {message.content}" for message in messages] == [
        "user: How loud?",
        "assistant: One moment.",
        "user: [volume: 70]\n[tool: on]",
    ]
    assert not any(message.calls or message.call_id for message in messages)
