"""A device's tools as functions that a language model may call.

Devices name their tools with dots (`self.audio_speaker.set_volume`), which OpenAI's
interface does not allow. Each function keeps the name of its tool, so that the way back
needs no guessing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from xiaozhi_trio.tools.device_mcp import DeviceMcp
from xiaozhi_trio.tools.device_tool import DeviceTool
from xiaozhi_trio.tools.jsonrpc_client import CallError
from xiaozhi_trio.tools.tool import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_NAME_CHARACTERS: Final = 64
"""Of a function, in OpenAI's interface."""
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_-]")


@attrs.frozen(kw_only=True)
class DeviceFunction:
    """A `Tool` that runs on the device."""

    name: str
    seconds: float
    _tool: DeviceTool
    _mcp: DeviceMcp = attrs.field(repr=False)

    source = "device"
    has_side_effect = True
    """A call is a message to the device, even where it only asks for something."""
    ends_reply = False

    @property
    def description(self) -> str:
        """As the device gives it."""
        return self._tool.description

    @property
    def parameters(self) -> Mapping[str, object]:
        """As the device gives them."""
        return self._tool.input_schema

    async def call(self, arguments: Mapping[str, object]) -> str:
        """Ask the device; the texts of its answer. Raises `ToolError`."""
        params = {"name": self._tool.name, "arguments": dict(arguments)}
        try:
            # How long a call may take is decided by who makes it.
            result = await self._mcp.request("tools/call", params, within=math.inf)
        except CallError as error:
            raise ToolError(f"The device failed: {error}") from error
        text = _text_of(result)
        if isinstance(result, Mapping) and result.get("isError") is True:
            raise ToolError(f"The device failed: {text or 'no reason given'}")
        return text


def device_functions(
    mcp: DeviceMcp, *, seconds: float, at_most: int, taken: Sequence[str] = ()
) -> list[DeviceFunction]:
    """The tools known by now, the first `at_most` of them, under names not in `taken`.

    A tool that is listed later does not change the names of those before it.
    """
    names = set(taken)
    functions: list[DeviceFunction] = []
    for tool in mcp.tools[:at_most]:
        name = function_name(tool.name, names)
        names.add(name)
        functions.append(DeviceFunction(name=name, seconds=seconds, tool=tool, mcp=mcp))
    return functions


def function_name(name: str, taken: set[str]) -> str:
    """The name of a tool with `_` for what no function's name may hold, unlike those `taken`."""
    plain = _FOREIGN.sub("_", name)[:MAX_NAME_CHARACTERS]
    candidate, number = plain, 1
    while candidate in taken:
        number += 1
        suffix = f"_{number}"
        candidate = plain[: MAX_NAME_CHARACTERS - len(suffix)] + suffix
    return candidate


def _text_of(result: object) -> str:
    """The texts of a `tools/call` result; what is not text is named."""
    content = result.get("content") if isinstance(result, Mapping) else None
    if not isinstance(content, list):
        raise ToolError("The device gave a result of an unknown form.")
    return "\n".join(_text_of_item(item) for item in content)


def _text_of_item(item: object) -> str:
    match item:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(kind)}:
            return f"({kind[:32]})"
        case _:
            return "(unknown)"
