"""What everything that a language model may call has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping


class ToolError(Exception):
    """A tool was not called or gave no result; the text tells the language model why."""


@runtime_checkable
class Tool(Protocol):
    """Something a language model may call."""

    @property
    def name(self) -> str:
        """Of 1 to 64 ASCII letters, digits, `_` and `-`."""

    @property
    def description(self) -> str:
        """What it does and when to call it, for the language model."""

    @property
    def parameters(self) -> Mapping[str, object]:
        """JSON Schema of its arguments, of type "object"."""

    @property
    def source(self) -> str:
        """Where it runs, in a word of our own for logs and traces: `device`, `built-in`."""

    @property
    def seconds(self) -> float:
        """Longest wait for its result."""

    @property
    def has_side_effect(self) -> bool:
        """Whether anything but the reply can tell that it was called.

        Such a tool is called only once it is certain that somebody asked for it.
        """

    @property
    def ends_reply(self) -> bool:
        """Whether the model has nothing to add to it: it is not told the result."""

    async def call(self, arguments: Mapping[str, object]) -> str:
        """Do it, and tell the language model what came of it.

        Raises `ToolError`. May be cancelled at any await.
        """
