"""A tool of a device, as its MCP server lists it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import orjson

from xiaozhi_trio.wire.violation import ProtocolViolation

MAX_TOOL_BYTES: Final = 8192
"""Largest tool as JSON. The firmware cannot list one beyond 8000 bytes (`mcp_server.cc`)."""
MAX_NAME_CHARACTERS: Final = 128


@attrs.frozen
class DeviceTool:
    """What a language model is told of a tool."""

    name: str
    """As the device spells it: printable, often with dots (`self.audio_speaker.set_volume`)."""
    description: str
    """Empty where the device gives none."""
    input_schema: Mapping[str, object] = attrs.field(repr=False)
    """JSON Schema of the arguments: always with `type` "object" and `properties`, which
    language models ask for; other members are as the device sent them."""
    size: int = attrs.field(repr=False)
    """Bytes of the tool as JSON."""
    user_only: bool = False
    """Meant for a person, not for a language model (`annotations.audience` of `["user"]`)."""


def parse_tool(listed: object) -> DeviceTool:
    """One entry of a `tools/list` result. Raises `ProtocolViolation`."""
    if not isinstance(listed, dict):
        raise ProtocolViolation("tool_not_object", "a tool is expected to be an object")
    name = listed.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ProtocolViolation(
            "tool_name", f"a name of 1 to {MAX_NAME_CHARACTERS} characters is expected"
        )
    if not name.isprintable():
        raise ProtocolViolation("tool_name", "a name without control characters is expected")
    description = listed.get("description")
    if not isinstance(description, str | None):
        raise ProtocolViolation("tool_description", "a description is expected to be a string")
    return DeviceTool(
        name=name,
        description=description or "",
        input_schema=_parse_schema(listed.get("inputSchema")),
        size=_size(listed),
        user_only=_is_user_only(listed.get("annotations")),
    )


def _parse_schema(schema: object) -> Mapping[str, object]:
    """The schema made whole; a tool that declares none takes no arguments."""
    if schema is None:
        return {"type": "object", "properties": {}}
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise ProtocolViolation("tool_schema", 'inputSchema is expected to be of type "object"')
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or not all(
        isinstance(declared, dict) for declared in properties.values()
    ):
        raise ProtocolViolation("tool_schema", "properties are expected to be objects by name")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(key, str) for key in required):
        raise ProtocolViolation("tool_schema", "required is expected to be an array of names")
    return {"type": "object", "properties": {}, **schema}


def _size(listed: dict[str, object]) -> int:
    try:
        size = len(orjson.dumps(listed))
    except orjson.JSONEncodeError as error:
        # Nested deeper than the encoder goes, so it could not be passed on either.
        raise ProtocolViolation("tool_schema", f"not encodable as JSON: {error}") from error
    if size > MAX_TOOL_BYTES:
        raise ProtocolViolation(
            "tool_too_large", f"{size} bytes as JSON, at most {MAX_TOOL_BYTES} are taken"
        )
    return size


def _is_user_only(annotations: object) -> bool:
    audience = annotations.get("audience") if isinstance(annotations, dict) else None
    return isinstance(audience, list) and "user" in audience and "assistant" not in audience
