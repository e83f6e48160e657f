from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.tools.device_tool import MAX_TOOL_BYTES, parse_tool
from xiaozhi_trio.wire.violation import ProtocolViolation

VOLUME: dict[str, Any] = {
    "name": "self.audio_speaker.set_volume",
    "description": "Set the volume.",
    "inputSchema": {
        "type": "object",
        "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": 100}},
        "required": ["volume"],
    },
}


def test_a_tool_of_the_firmware() -> None:
    tool = parse_tool(VOLUME)
    assert tool.name == VOLUME["name"]
    assert tool.description == VOLUME["description"]
    assert tool.input_schema == VOLUME["inputSchema"]
    assert tool.size == len(orjson.dumps(VOLUME))
    assert not tool.user_only


@pytest.mark.parametrize(
    "schema",
    [{"type": "object"}, {"properties": {}}, {"type": "object", "properties": {}}, None],
)
def test_a_tool_without_arguments(schema: object) -> None:
    tool = parse_tool({"name": "看一看", "inputSchema": schema})
    assert tool.input_schema == {"type": "object", "properties": {}}
    assert tool.description == ""


@pytest.mark.parametrize(
    ("audience", "user_only"),
    [
        (["user"], True),
        (["user", "assistant"], False),
        (["assistant"], False),
        ([], False),
        ("user", False),
        (None, False),
    ],
)
def test_who_a_tool_is_meant_for(audience: object, user_only: bool) -> None:
    tool = parse_tool({**VOLUME, "annotations": {"audience": audience}})
    assert tool.user_only is user_only


@pytest.mark.parametrize("annotations", [None, [], "user", 5])
def test_odd_annotations_mean_nothing(annotations: object) -> None:
    assert not parse_tool({**VOLUME, "annotations": annotations}).user_only


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": None}, "tool_name"),
        ({"name": 5}, "tool_name"),
        ({"name": ""}, "tool_name"),
        ({"name": "x" * 129}, "tool_name"),
        ({"name": "a\nb"}, "tool_name"),
        ({"name": "\x1b[31m"}, "tool_name"),
        ({"description": 5}, "tool_description"),
        ({"inputSchema": []}, "tool_schema"),
        ({"inputSchema": "{}"}, "tool_schema"),
        ({"inputSchema": {"type": "string"}}, "tool_schema"),
        ({"inputSchema": {"type": ["object"]}}, "tool_schema"),
        ({"inputSchema": {"properties": None}}, "tool_schema"),
        ({"inputSchema": {"properties": []}}, "tool_schema"),
        ({"inputSchema": {"properties": {"x": "integer"}}}, "tool_schema"),
        ({"inputSchema": {"required": "x"}}, "tool_schema"),
        ({"inputSchema": {"required": [5]}}, "tool_schema"),
        ({"description": "x" * MAX_TOOL_BYTES}, "tool_too_large"),
        ({"inputSchema": {"properties": {"x": {"y": "z" * MAX_TOOL_BYTES}}}}, "tool_too_large"),
    ],
)
def test_malformed_tools(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        parse_tool({**VOLUME, **changes})
    assert raised.value.reason == reason


def test_a_schema_nested_too_deep_for_the_encoder() -> None:
    schema: dict[str, object] = {}
    for _ in range(1000):
        schema = {"properties": {"x": schema}}
    with pytest.raises(ProtocolViolation) as raised:
        parse_tool({"name": "deep", "inputSchema": schema})
    assert raised.value.reason == "tool_schema"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
schemas = st.fixed_dictionaries(
    {}, optional={"type": st.just("object") | json, "properties": json, "required": json}
)


@given(
    json
    | st.fixed_dictionaries(
        {"name": st.text()},
        optional={"description": json, "inputSchema": schemas | json, "annotations": json},
    )
)
def test_only_violations_are_raised(listed: object) -> None:
    try:
        tool = parse_tool(listed)
    except ProtocolViolation:
        return
    assert orjson.loads(orjson.dumps(tool.input_schema))["type"] == "object"
    assert tool.size <= MAX_TOOL_BYTES
