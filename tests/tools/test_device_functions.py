"""A device's tools under names that language models may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from xiaozhi_trio.testing.device_tools import DeviceTools
from xiaozhi_trio.tools.device_functions import device_functions, function_name
from xiaozhi_trio.tools.device_mcp import DeviceMcp
from xiaozhi_trio.tools.tool import Tool, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping


async def met(tools: Any) -> DeviceMcp:
    def send(payload: Mapping[str, Any]) -> None:
        answer = tools.answer(payload)
        if answer is not None:
            mcp.receive(answer)

    mcp = DeviceMcp(send, vision_url="", vision_token="")
    await mcp.run()
    return mcp


class Answers:
    """A device with one tool that answers a call as it is told."""

    def __init__(self, **answer: Any) -> None:
        self._answer = answer

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        if request["method"].startswith("notifications"):
            return None
        answer: dict[str, Any] = {"result": {"tools": [{"name": "x"}]}}
        if request["method"] == "tools/call":
            answer = self._answer
        return {"jsonrpc": "2.0", "id": request["id"], **answer}


async def answer_of(**answer: Any) -> str:
    [function] = device_functions(await met(Answers(**answer)), seconds=1, at_most=9)
    return await function.call({})


async def test_dots_become_underscores_and_the_way_back_is_known() -> None:
    device = DeviceTools()
    status, volume = device_functions(await met(device), seconds=9, at_most=9)
    assert isinstance(volume, Tool)
    assert (status.name, volume.name) == (
        "self_get_device_status",
        "self_audio_speaker_set_volume",
    )
    assert volume.description == "Sets the volume."
    assert volume.parameters["required"] == ["volume"]
    assert volume.has_side_effect
    assert not volume.ends_reply
    assert await volume.call({"volume": 30}) == "true"
    assert device.volume == 30
    assert await status.call({}) == '{"audio_speaker":{"volume":30}}'
    with pytest.raises(ToolError, match="Missing valid argument: volume"):
        await volume.call({})


async def test_the_first_tools_count() -> None:
    mcp = await met(DeviceTools())
    [function] = device_functions(mcp, seconds=9, at_most=1)
    assert function.name == "self_get_device_status"


async def test_a_name_of_our_own_is_not_taken_from_us() -> None:
    mcp = await met(Answers())
    [function] = device_functions(mcp, seconds=9, at_most=9, taken=["x"])
    assert function.name == "x_2"


@pytest.mark.parametrize(
    ("name", "taken", "becomes"),
    [
        ("self.led.on", set(), "self_led_on"),
        ("self.led.on", {"self_led_on"}, "self_led_on_2"),
        ("self led:on", {"self_led_on", "self_led_on_2"}, "self_led_on_3"),
        ("开灯", set(), "__"),
        ("x" * 100, set(), "x" * 64),
        ("x" * 100, {"x" * 64}, "x" * 62 + "_2"),
    ],
)
def test_function_name(name: str, taken: set[str], becomes: str) -> None:
    assert function_name(name, taken) == becomes


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "image", "data": "AAAA"}], "(image)"),
        ([{"type": "x" * 1000}], "(" + "x" * 32 + ")"),
        ([7, {"type": "text", "text": None}], "(unknown)\n(text)"),
    ],
)
async def test_results(content: list[Any], text: str) -> None:
    assert await answer_of(result={"content": content}) == text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            {"result": {"content": [{"type": "text", "text": "lamp broken"}], "isError": True}},
            "lamp",
        ),
        ({"result": {"content": [], "isError": True}}, "no reason given"),
        ({"result": {}}, "unknown form"),
        ({"result": "true"}, "unknown form"),
        ({"error": {"message": "Unknown tool: x"}}, "tools/call: Unknown tool: x"),
    ],
)
async def test_failures_are_told(answer: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolError, match=told):
        await answer_of(**answer)
