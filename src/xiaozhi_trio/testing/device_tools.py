"""The MCP server in a device's firmware, as `mcp_server.cc` of firmware 2.4.2 answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

_NO_ARGUMENTS: Final = {"type": "object", "properties": {}}
_ANY_ARGUMENTS: Final = {"type": "object", "additionalProperties": True}
_LIST: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "self.get_device_status",
        "description": "Tells the volume and the brightness.",
        "inputSchema": _NO_ARGUMENTS,
    },
    {
        "name": "self.audio_speaker.set_volume",
        "description": "Sets the volume.",
        "inputSchema": {
            "type": "object",
            "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": 100}},
            "required": ["volume"],
        },
    },
)


@attrs.frozen(kw_only=True)
class ToolScript:
    """A tool that answers what it was told to."""

    name: str
    description: str = ""
    result: str = "true"
    """The text that it answers with."""
    error: str = ""
    """What it fails with in place of a result."""
    delay_ms: int = 0
    """What it takes; the device does nothing else meanwhile."""
    answers: bool = True


@attrs.define
class DeviceTools:
    """Two tools and the state they show and change, and further ones that do as scripted."""

    scripted: Sequence[ToolScript] = ()
    """They count before the two where they have the name of one."""
    volume: int = 70
    calls: list[str] = attrs.field(factory=list)
    """Names of the tools that were called."""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON-RPC response, None where firmware stays silent.

        It does so for notifications, for responses and for an id that is no number.
        """
        method, number = request.get("method"), request.get("id")
        if request.get("jsonrpc") != "2.0" or not isinstance(method, str):
            return None
        if method.startswith("notifications") or not isinstance(number, int):
            return None
        params = request.get("params", {})
        match method:
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "simulated", "version": "2.4.2"},
                }
            case "tools/list":
                result = {"tools": self._list()}
            case "tools/call":
                result = self._call(params.get("name"), params.get("arguments", {}))
            case _:
                result = {"error": f"Method not implemented: {method}"}
        if "error" in result:
            # Firmware sends no code with it.
            return {"jsonrpc": "2.0", "id": number, "error": {"message": result["error"]}}
        return {"jsonrpc": "2.0", "id": number, "result": result}

    def called(self, request: Mapping[str, Any]) -> str:
        """Name of the tool that a request calls; "" where it is another request."""
        params = request.get("params")
        if request.get("method") != "tools/call" or not isinstance(params, dict):
            return ""
        return str(params.get("name", ""))

    def script(self, name: str) -> ToolScript:
        """What the tool of this name was told to do; those of the firmware answer at once."""
        return next((tool for tool in self.scripted if tool.name == name), ToolScript(name=name))

    def _list(self) -> list[dict[str, Any]]:
        names = {tool.name for tool in self.scripted}
        own = [tool for tool in _LIST if tool["name"] not in names]
        return own + [
            {"name": tool.name, "description": tool.description, "inputSchema": _ANY_ARGUMENTS}
            for tool in self.scripted
        ]

    def _call(self, name: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        script = self.script(name)
        if script in self.scripted:
            self.calls.append(name)
            if script.error:
                return {"error": script.error}
            return {"content": [{"type": "text", "text": script.result}], "isError": False}
        if name not in {tool["name"] for tool in _LIST}:
            return {"error": f"Unknown tool: {name}"}
        self.calls.append(name)
        text = "true"
        if name == "self.audio_speaker.set_volume":
            volume = arguments.get("volume")
            if not isinstance(volume, int):
                return {"error": "Missing valid argument: volume"}
            self.volume = volume
        else:
            text = f'{{"audio_speaker":{{"volume":{self.volume}}}}}'
        return {"content": [{"type": "text", "text": text}], "isError": False}
