"""What the language model is reminded of."""

from __future__ import annotations

from xiaozhi_trio.config.settings import ConversationSettings
from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall
from xiaozhi_trio.session.history import History


def contents(history: History) -> list[str]:
    return [f"{m.role[0]}:{m.content}" for m in history.dialogue("p")[1:]]


def test_the_prompt_comes_first() -> None:
    history = History(ConversationSettings())
    history.user_said("hi")
    first, second = history.dialogue("be kind")
    assert (first.role, first.content, second.role) == ("system", "be kind", "user")


def test_two_in_a_row_become_one() -> None:
    history = History(ConversationSettings())
    history.user_said("one")
    history.assistant_said("")
    history.user_said("two")
    assert contents(history) == ["u:one\ntwo"]


def test_messages_are_bounded_and_begin_with_the_user() -> None:
    history = History(ConversationSettings(history_messages=3))
    for number in range(5):
        history.user_said(f"q{number}")
        history.assistant_said(f"a{number}")
    assert contents(history) == ["u:q4", "a:a4"]


def test_characters_are_bounded_oldest_first() -> None:
    history = History(ConversationSettings(history_characters=200))
    history.user_said("old" * 30)
    history.assistant_said("x" * 60)
    history.user_said("new" * 30)
    assert contents(history) == ["u:" + "new" * 30]
    history.assistant_said("y" * 1000)
    assert sum(len(m.content) for m in history.dialogue("")[1:]) <= 200


def test_without_a_memory_the_question_itself_is_still_there() -> None:
    history = History(ConversationSettings(history_messages=0))
    history.user_said("one")
    history.assistant_said("answer")
    history.user_said("two")
    assert contents(history) == ["u:two"]


def with_tool(history: History, result: str = "on") -> None:
    call = ToolCall("1", "lamp", "{}")
    history.tools_answered(
        [ChatMessage("assistant", "", (call,)), ChatMessage("tool", result, call_id="1")]
    )


def test_calls_and_results_stand_before_what_was_heard_of_the_answer() -> None:
    history = History(ConversationSettings())
    history.user_said("light!")
    with_tool(history)
    history.assistant_said("It is on.")
    history.user_said("thanks")
    assert contents(history) == ["u:light!", "a:", "t:on", "a:It is on.", "u:thanks"]


def test_what_is_heard_does_not_become_part_of_a_call() -> None:
    history = History(ConversationSettings())
    history.user_said("light!")
    history.tools_answered([ChatMessage("assistant", "", (ToolCall("1", "lamp", "{}"),))])
    history.assistant_said("It is on.")
    assert contents(history) == ["u:light!", "a:", "a:It is on."]


def test_a_result_is_forgotten_with_its_call() -> None:
    history = History(ConversationSettings(history_messages=3))
    history.user_said("light!")
    with_tool(history)
    history.assistant_said("It is on.")
    history.user_said("thanks")
    assert contents(history) == ["u:thanks"]


def test_results_are_bounded_too() -> None:
    history = History(ConversationSettings(history_characters=200))
    history.user_said("light!")
    with_tool(history, "x" * 1000)
    assert sum(len(m.content) for m in history.dialogue("")[1:]) <= 200


def test_one_call_does_not_displace_the_dialogue() -> None:
    history = History(ConversationSettings())
    history.user_said("my name is Ann")
    history.assistant_said("Hello Ann.")
    history.user_said("light!")
    long = ToolCall("1", "lamp", '{"text": "' + "x" * 50_000 + '"}')
    short = ToolCall("2", "lamp", '{"on": true}')
    history.tools_answered(
        [
            ChatMessage("assistant", "", (long, short)),
            ChatMessage("tool", "y" * 50_000, call_id="1"),
            ChatMessage("tool", "on", call_id="2"),
        ]
    )
    history.assistant_said("It is on.")
    *before, calls, result, other, last = history.dialogue("")[1:]
    assert [message.content for message in before] == ["my name is Ann", "Hello Ann.", "light!"]
    assert [call.arguments for call in calls.calls] == ["{}", '{"on": true}']
    assert 1000 <= len(result.content) <= 4000
    assert (other.content, last.content) == ("on", "It is on.")


def test_calls_and_results_that_have_room_are_kept_as_they_are() -> None:
    history = History(ConversationSettings(history_characters=8000))
    history.user_said("light!")
    call = ToolCall("1", "lamp", '{"text": "' + "x" * 1900 + '"}')
    messages = [
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", "y" * 2000, call_id="1"),
    ]
    history.tools_answered(messages)
    assert history.dialogue("")[2:] == messages
