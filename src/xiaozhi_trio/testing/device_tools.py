"""The MCP server in a device's firmware, as `mcp_server.cc` of firmware 2.4.2 answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_ARGUMENTS: Final = {"type": "object", "properties": {}}
_LIST: Final = (
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


@attrs.define
class DeviceTools:
    """Two tools, and the state they show and change."""

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
                result = {"tools": list(_LIST)}
            case "tools/call":
                result = self._call(params.get("name"), params.get("arguments", {}))
            case _:
                result = {"error": f"Method not implemented: {method}"}
        if "error" in result:
            # Firmware sends no code with it.
            return {"jsonrpc": "2.0", "id": number, "error": {"message": result["error"]}}
        return {"jsonrpc": "2.0", "id": number, "result": result}

    def _call(self, name: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
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
