"""What the language model is reminded of."""

from __future__ import annotations

from xiaozhi_trio.config.settings import ConversationSettings
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
