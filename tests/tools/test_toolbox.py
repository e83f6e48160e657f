"""Calling tools by the names and arguments that a language model writes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import pytest
import trio

from xiaozhi_trio.tools.end_conversation import EndConversation
from xiaozhi_trio.tools.tool import Tool, ToolError
from xiaozhi_trio.tools.toolbox import MAX_ARGUMENT_CHARACTERS, Toolbox, parse_arguments


async def nothing(_: Mapping[str, object]) -> str:
    await trio.lowlevel.checkpoint()
    return "done"


@attrs.frozen(kw_only=True)
class Does:
    name: str = "do"
    description: str = "Does something."
    parameters: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object"})
    source: str = "test"
    seconds: float = math.inf
    has_side_effect: bool = False
    ends_reply: bool = False
    does: Callable[[Mapping[str, object]], Awaitable[str]] = nothing

    async def call(self, arguments: Mapping[str, object]) -> str:
        return await self.does(arguments)


def test_a_tool_is_found_by_its_name() -> None:
    first, second = Does(), Does(name="undo")
    toolbox = Toolbox([first, second, Does()], result_characters=100)
    assert toolbox.tools == (first, second)
    assert toolbox.find("do") is first
    with pytest.raises(ToolError, match="no tool 'jump'; those there are: do, undo"):
        toolbox.find("jump")


def test_a_name_made_up_is_cut() -> None:
    with pytest.raises(ToolError, match=r"those there are: none\.$") as caught:
        Toolbox([], result_characters=100).find("x" * 10_000)
    assert len(str(caught.value)) < 200


async def test_a_long_result_is_cut() -> None:
    async def long(_: Mapping[str, object]) -> str:
        await trio.lowlevel.checkpoint()
        return "x" * 1000

    toolbox = Toolbox([Does(does=long)], result_characters=100)
    result = await toolbox.call(toolbox.find("do"), {})
    assert result == "x" * 100 + "… (cut, 1000 characters)"


async def test_a_tool_that_does_not_answer_is_given_up(autojump_clock) -> None:
    async def hang(_: Mapping[str, object]) -> str:
        await trio.sleep_forever()
        raise AssertionError

    tool = Does(does=hang, seconds=7)
    began = trio.current_time()
    with pytest.raises(ToolError, match="No answer within 7 s"):
        await Toolbox([tool], result_characters=100).call(tool, {})
    assert trio.current_time() == began + 7


@pytest.mark.parametrize(
    ("text", "arguments"),
    [("", {}), (" \n", {}), ("{}", {}), ('{"volume": 3, "a": [null]}', {"volume": 3, "a": [None]})],
)
def test_arguments(text: str, arguments: dict[str, object]) -> None:
    assert parse_arguments(text) == arguments


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"volume": 3', "no JSON"),
        ("[1]", "no JSON object"),
        ("null", "no JSON object"),
        ('{"a": "\\ud83d"}', "no JSON"),
        ('{"a":' + "[" * 400 + "]" * 400 + "}", "no JSON"),
        ('{"a": "' + "x" * MAX_ARGUMENT_CHARACTERS + '"}', "at most 8192"),
    ],
)
def test_what_are_no_arguments_is_told(text: str, told: str) -> None:
    with pytest.raises(ToolError, match=told) as caught:
        parse_arguments(text)
    assert len(str(caught.value)) < 200


async def test_the_tool_that_hangs_up() -> None:
    calls: list[str] = []
    tool = EndConversation(lambda: calls.append("end"))
    assert isinstance(tool, Tool)
    assert tool.has_side_effect
    assert tool.ends_reply
    assert await Toolbox([tool], result_characters=100).call(tool, {}) == "The conversation ends."
    assert calls == ["end"]


async def test_a_cancelled_conversation_is_not_ended() -> None:
    calls: list[str] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await EndConversation(lambda: calls.append("end")).call({})
    assert not calls
