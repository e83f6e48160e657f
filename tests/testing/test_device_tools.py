"""The MCP server of the simulated firmware."""

from __future__ import annotations

import pytest

from xiaozhi_trio.testing.device_tools import DeviceTools, ToolScript


def ask(tools: DeviceTools, method: str, number: object = 1, **params):
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return tools.answer(body)


def test_it_introduces_itself_and_lists_its_tools() -> None:
    tools = DeviceTools()
    assert ask(tools, "initialize")["result"]["protocolVersion"] == "2024-11-05"
    names = [tool["name"] for tool in ask(tools, "tools/list")["result"]["tools"]]
    assert names == ["self.get_device_status", "self.audio_speaker.set_volume"]


def test_a_tool_does_what_it_says() -> None:
    tools = DeviceTools()
    ask(tools, "tools/call", name="self.audio_speaker.set_volume", arguments={"volume": 5})
    status = ask(tools, "tools/call", name="self.get_device_status")
    assert status["result"]["content"][0]["text"] == '{"audio_speaker":{"volume":5}}'
    assert tools.calls == ["self.audio_speaker.set_volume", "self.get_device_status"]


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("ping", {}, "Method not implemented: ping"),
        ("tools/call", {"name": "self.fly"}, "Unknown tool: self.fly"),
        (
            "tools/call",
            {"name": "self.audio_speaker.set_volume", "arguments": {"volume": "loud"}},
            "Missing valid argument: volume",
        ),
    ],
)
def test_errors_have_a_message_and_no_code(method: str, params, message: str) -> None:
    assert ask(DeviceTools(), method, **params)["error"] == {"message": message}


@pytest.mark.parametrize(
    "request_",
    [
        {"jsonrpc": "2.0", "id": "text", "method": "tools/list"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "1.0", "id": 1, "method": "initialize"},
    ],
)
def test_to_these_firmware_stays_silent(request_) -> None:
    assert DeviceTools().answer(request_) is None


def call(tools: DeviceTools, name: str):
    return ask(tools, "tools/call", name=name)


def test_a_scripted_tool_does_as_it_was_told() -> None:
    lamp = ToolScript(name="self.lamp", description="Switches it.", result="on", delay_ms=20)
    tools = DeviceTools([lamp, ToolScript(name="self.radio", error="no signal")])
    assert ask(tools, "tools/list")["result"]["tools"][2]["description"] == "Switches it."
    assert call(tools, "self.lamp")["result"]["content"][0]["text"] == "on"
    assert call(tools, "self.radio")["error"] == {"message": "no signal"}
    assert tools.calls == ["self.lamp", "self.radio"]
    assert tools.script("self.lamp") is lamp
    assert tools.script("self.get_device_status").delay_ms == 0


def test_a_scripted_tool_takes_the_place_of_one_of_its_name() -> None:
    tools = DeviceTools([ToolScript(name="self.get_device_status", result="fine")])
    names = [tool["name"] for tool in ask(tools, "tools/list")["result"]["tools"]]
    assert names == ["self.audio_speaker.set_volume", "self.get_device_status"]
    assert call(tools, "self.get_device_status")["result"]["content"][0]["text"] == "fine"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"method": "tools/call", "params": {"name": "self.lamp"}}, "self.lamp"),
        ({"method": "tools/call", "params": {}}, ""),
        ({"method": "tools/call"}, ""),
        ({"method": "tools/list", "params": {"name": "self.lamp"}}, ""),
    ],
)
def test_which_tool_a_request_calls(body, name: str) -> None:
    assert DeviceTools().called(body) == name
