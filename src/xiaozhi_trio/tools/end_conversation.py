"""The tool by which the language model hangs up when the user takes leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class EndConversation:
    """A `Tool`: after the reply it is called in, the session ends."""

    name = "end_conversation"
    description = (
        "Ends the conversation and hangs up. Call it when the user says goodbye or wants you to "
        "stop listening, after a short goodbye of your own. Never call it otherwise."
    )
    parameters: ClassVar[Mapping[str, object]] = {"type": "object", "properties": {}}
    source = "built-in"
    seconds = 1.0
    has_side_effect = True
    ends_reply = True

    def __init__(self, on_end: Callable[[], None]) -> None:
        """`on_end` must not wait."""
        self._on_end = on_end

    async def call(self, arguments: Mapping[str, object]) -> str:  # noqa: ARG002 - takes none
        """Tell that the session ends with this reply."""
        await trio.lowlevel.checkpoint()
        self._on_end()
        return "The conversation ends."
