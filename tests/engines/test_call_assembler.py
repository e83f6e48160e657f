"""Tool calls as OpenAI-compatible servers stream them."""

from __future__ import annotations

from typing import Any

import pytest

from xiaozhi_trio.engines.llm.call_assembler import (
    MOST_CALLS,
    MOST_CHARACTERS,
    CallAssembler,
)
from xiaozhi_trio.engines.protocols import ToolCall


def piece(name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calls_of(*deltas: Any) -> list[tuple[str, str, str]]:
    assembler = CallAssembler()
    for delta in deltas:
        assembler.feed(delta)
    return [(call.id, call.name, call.arguments) for call in assembler.finish()]


def test_arguments_come_in_pieces() -> None:
    assert calls_of(
        [piece("f", "", index=0, id="a")],
        [piece(None, '{"x"', index=0)],
        [piece(None, ": 1}", index=0)],
    ) == [("a", "f", '{"x": 1}')]


def test_several_at_once_take_turns() -> None:
    assert calls_of(
        [piece("f", "", index=0, id="a"), piece("g", "", index=1, id="b")],
        [piece(None, "1", index=1)],
        [piece(None, "0", index=0), piece(None, "1", index=1)],
    ) == [("a", "f", "0"), ("b", "g", "11")]


def test_an_id_and_a_name_repeated_on_each_piece_begin_nothing() -> None:
    assert calls_of([piece("f", "{", index=0, id="a")], [piece("f", "}", index=0, id="a")]) == [
        ("a", "f", "{}")
    ]


def test_an_empty_id_and_name_on_later_pieces_belong_to_the_call() -> None:
    assert calls_of([piece("f", "{", index=0, id="a")], [piece("", "}", index=0, id="")]) == [
        ("a", "f", "{}")
    ]


def test_whole_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    assert calls_of([piece("f", "{}", index=0, id="a")], [piece("f", "{}", index=0, id="b")]) == [
        ("a", "f", "{}"),
        ("b", "f", "{}"),
    ]


@pytest.mark.parametrize("ids", [("a", "b"), (None, None), ("", "")])
def test_without_an_index_a_name_begins_a_call(ids: Any) -> None:
    first, second = calls_of(
        [piece("f", "{", id=ids[0])], [piece(None, "}")], [piece("g", "{}", id=ids[1])]
    )
    assert first[1:] == ("f", "{}")
    assert second[1:] == ("g", "{}")
    assert first[0] != second[0]
    assert first[0]
    assert second[0]


def test_a_name_is_made_fit_to_be_sent_back() -> None:
    [(_, name, _)] = calls_of([piece("self.audio speaker" + "x" * 100, "{}", id="a")])
    assert name.startswith("self_audio_speakerxx")
    assert len(name) == 64


@pytest.mark.parametrize(
    "nonsense",
    [None, {}, "x", [None], [{}], [{"function": None}], [piece(None, "{}")], [piece("", "{}")]],
)
def test_what_is_no_call_is_ignored(nonsense: Any) -> None:
    assert calls_of(nonsense) == []


def test_what_is_kept_is_bounded() -> None:
    flood = [piece("f", "", index=number, id=str(number)) for number in range(MOST_CALLS + 9)]
    assert len(calls_of(flood)) == MOST_CALLS
    first, second = calls_of(
        [piece("f", "x" * (MOST_CHARACTERS - 2), index=0, id="i" * 1000)],
        [piece("g", "y" * 9, index=1, id="b")],
        [piece(None, "z", index=1)],
    )
    assert len(first[2]) + len(second[2]) == MOST_CHARACTERS
    assert len(first[0]) == 256


def test_calls_are_shown_without_their_arguments() -> None:
    assert "secret" not in repr(ToolCall("a", "f", "secret"))
