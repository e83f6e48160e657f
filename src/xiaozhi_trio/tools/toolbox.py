"""The tools a language model is offered in one turn, and calls by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
import trio

from xiaozhi_trio.tools.tool import Tool, ToolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_ARGUMENT_CHARACTERS: Final = 8192
"""Longest arguments that are passed on to a tool; those of devices are numbers and names."""
NO_ARGUMENTS: Final = "{}"
"""In place of arguments that are too long to be kept."""
_SHOWN_CHARACTERS: Final = 100


class Toolbox:
    """Tools with different names."""

    def __init__(self, tools: Iterable[Tool], *, result_characters: int) -> None:
        """A result is cut at `result_characters`. Of tools of one name, the first counts."""
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self._tools.setdefault(tool.name, tool)
        self._result_characters = result_characters

    @property
    def tools(self) -> tuple[Tool, ...]:
        """In the order in which they were given."""
        return tuple(self._tools.values())

    def find(self, name: str) -> Tool:
        """The tool of this name. Raises `ToolError`."""
        tool = self._tools.get(name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            raise ToolError(
                f"There is no tool {name[:_SHOWN_CHARACTERS]!r}; those there are: {names}."
            )
        return tool

    async def call(self, tool: Tool, arguments: Mapping[str, object]) -> str:
        """Its result, within its time and its length. Raises `ToolError`."""
        with trio.move_on_after(tool.seconds) as patience:
            result = await tool.call(arguments)
        if patience.cancelled_caught:
            raise ToolError(f"No answer within {tool.seconds:g} s; it may still happen.")
        return self._cut(result)

    def _cut(self, result: str) -> str:
        if len(result) <= self._result_characters:
            return result
        return f"{result[: self._result_characters]}… (cut, {len(result)} characters)"


def parse_arguments(text: str) -> dict[str, object]:
    """The arguments that a language model has written; none where it wrote nothing.

    Raises `ToolError`.
    """
    if not text.strip():
        return {}
    if len(text) > MAX_ARGUMENT_CHARACTERS:
        raise ToolError(
            f"The arguments have {len(text)} characters; at most {MAX_ARGUMENT_CHARACTERS} "
            "are taken."
        )
    try:
        arguments = orjson.loads(text)
        # What is nested deeper than the encoder goes could not be passed on.
        orjson.dumps(arguments)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise ToolError(f"The arguments are no JSON ({error}); write one JSON object.") from error
    if not isinstance(arguments, dict):
        raise ToolError("The arguments are no JSON object; write one.")
    return arguments
