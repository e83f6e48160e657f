"""What one turn calls for its language model, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from loguru import logger

from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall, ToolSpec
from xiaozhi_trio.tools.tool import ToolError
from xiaozhi_trio.tools.toolbox import (
    MAX_ARGUMENT_CHARACTERS,
    NO_ARGUMENTS,
    Toolbox,
    parse_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xiaozhi_trio.session.clearance import Clearance
    from xiaozhi_trio.telemetry.turn_trace import Attempt
    from xiaozhi_trio.tools.tool import Tool

_UNKNOWN: Final = "Interrupted before an answer came; whether it was done is not known."
_SHOWN_CHARACTERS: Final = 100
_LONGEST_NAME: Final = 64
"""Characters, as of `ToolSpec.name`."""


@attrs.define
class _Made:
    """A call that was made, or refused."""

    call: ToolCall
    result: str = _UNKNOWN


class ToolCalls:
    """The calls of one turn, one after the other, for a later one may rest on an earlier."""

    def __init__(
        self, toolbox: Toolbox, *, at_most: int, trace: Attempt, clearance: Clearance
    ) -> None:
        """No tool with a side effect is called without `clearance`."""
        self._toolbox = toolbox
        self._trace = trace
        self._clearance = clearance
        self._rounds: list[list[_Made]] = []
        self.left = at_most
        """Calls that may still be made; refused ones count too."""
        self.is_exhausted = False
        """A call was refused because there had been too many."""
        self.ended_reply = False
        """A tool was called after which there is nothing to say."""

    @property
    def specs(self) -> list[ToolSpec]:
        """What the language model is told of the tools."""
        return [
            ToolSpec(tool.name, tool.description, tool.parameters) for tool in self._toolbox.tools
        ]

    @property
    def messages(self) -> list[ChatMessage]:
        """All calls that were begun, with their results, for the dialogue of later turns.

        What an interruption cut short is among them: the light that was switched on is on.
        """
        return [message for made in self._rounds for message in _messages("", made)]

    async def answer(self, said: str, calls: Sequence[ToolCall]) -> list[ChatMessage]:
        """Make the calls that the model asks for after it has `said` something.

        Gives what to tell it: its own message, and the results or why there are none.
        """
        made: list[_Made] = []
        self._rounds.append(made)
        for call in calls:
            await self._make(call, made)
        return _messages(said, made)

    async def _make(self, call: ToolCall, made: list[_Made]) -> None:
        log = logger.bind(tool=call.name[:_SHOWN_CHARACTERS])
        try:
            tool, arguments = self._understood(call)
        except ToolError as error:
            made.append(_Made(_bounded(call), str(error)))
            log.bind(problem=str(error)).warning("tool call refused")
            return
        if tool.has_side_effect:
            await self._clearance.wait()
        entry = _Made(call)
        made.append(entry)
        try:
            with self._trace.stage("tool", engine=tool.source):
                entry.result = await self._toolbox.call(tool, arguments)
        except ToolError as error:
            entry.result = str(error)
            log.bind(source=tool.source, problem=str(error)).warning("tool failed")
            return
        log.bind(source=tool.source).info("tool called")
        self.ended_reply = self.ended_reply or tool.ends_reply

    def _understood(self, call: ToolCall) -> tuple[Tool, Mapping[str, object]]:
        if self.left == 0:
            self.is_exhausted = True
            raise ToolError("Too many calls for one question. Answer with what you know by now.")
        self.left -= 1
        return self._toolbox.find(call.name), parse_arguments(call.arguments)


def _bounded(call: ToolCall) -> ToolCall:
    """A call that nobody takes, short enough to be repeated in a dialogue."""
    is_short = len(call.arguments) <= MAX_ARGUMENT_CHARACTERS
    return attrs.evolve(
        call,
        name=call.name[:_LONGEST_NAME],
        arguments=call.arguments if is_short else NO_ARGUMENTS,
    )


def _messages(said: str, made: Sequence[_Made]) -> list[ChatMessage]:
    if not made:
        return []
    calls = tuple(each.call for each in made)
    results = [ChatMessage("tool", each.result, call_id=each.call.id) for each in made]
    return [ChatMessage("assistant", said, calls), *results]
