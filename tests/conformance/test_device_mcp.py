"""Conformance 82 to 93 as far as payloads alone show them: the device's MCP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trio

from xiaozhi_trio.tools.device_mcp import DeviceMcp

if TYPE_CHECKING:
    from trio.testing import MockClock


def tool(name: str, **members: object) -> dict[str, object]:
    return {
        "name": name,
        "description": f"Does {name}.",
        "inputSchema": {"type": "object", "properties": {}},
        **members,
    }


class FirmwareDevice:
    """Checks and answers requests as the firmware does, after `latency` seconds.

    The five checks, the error without a code and the cursor that names the first tool
    left out are those of `McpServer::ParseMessage` (firmware 2.4.2).
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]], *, page_tools: int = 2) -> None:
        self.got: list[Mapping[str, Any]] = []
        self._tools = tools
        self._page_tools = page_tools
        self._to_device, self._from_server = trio.open_memory_channel[Mapping[str, Any]](64)
        self.mcp = DeviceMcp(self._take, vision_url="http://192.0.2.1/v", vision_token="")

    def _take(self, payload: Mapping[str, Any]) -> None:
        on_the_wire = orjson.loads(orjson.dumps(payload))
        self.got.append(on_the_wire)
        self._to_device.send_nowait(on_the_wire)

    async def run(self, latency: float = 0) -> None:
        async for message in self._from_server:
            await trio.sleep(latency)
            reply = self._reply(message)
            if reply is not None:
                self.mcp.receive(orjson.loads(orjson.dumps(reply)))

    def _reply(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        method = message.get("method")
        params = message.get("params", {})
        if (
            message.get("jsonrpc") != "2.0"
            or not isinstance(method, str)
            or method.startswith("notifications")
            or not isinstance(params, dict)
            or type(message.get("id")) is not int
        ):
            return None
        return {"jsonrpc": "2.0", "id": message["id"], **self._members(method, params)}

    def _members(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            return {
                "result": {
                    "protocolVersion": "2024-11-05",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "bread-compact-wifi", "version": "2.4.2"},
                }
            }
        if method != "tools/list":
            return {"error": {"message": f"Method not implemented: {method}"}}
        names = [listed["name"] for listed in self._tools]
        start = names.index(params["cursor"]) if params.get("cursor") else 0
        result: dict[str, Any] = {"tools": list(self._tools[start : start + self._page_tools])}
        if start + self._page_tools < len(names):
            result["nextCursor"] = names[start + self._page_tools]
        return {"result": result}

    def asked(self, method: str) -> list[Mapping[str, Any]]:
        return [message for message in self.got if message.get("method") == method]

    def names(self) -> list[str]:
        return [listed.name for listed in self.mcp.tools]


async def handshake(device: FirmwareDevice, latency: float = 0.1) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run, latency)
        await device.mcp.run()
        nursery.cancel_scope.cancel()


async def test_082_initialize_then_initialized_then_list(autojump_clock: MockClock) -> None:
    device = FirmwareDevice([tool("self.get_device_status")])
    await handshake(device)
    assert [message["method"] for message in device.got] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
    ]
    initialize = device.got[0]
    assert type(initialize["id"]) is int
    assert initialize["params"]["capabilities"]["vision"] == {
        "url": "http://192.0.2.1/v",
        "token": "",
    }
    assert "id" not in device.got[1]
    assert device.names() == ["self.get_device_status"]


async def test_083_nothing_is_sent_unless_the_handshake_is_run() -> None:
    device = FirmwareDevice([tool("a")])
    device.mcp.receive({"jsonrpc": "2.0", "method": "notifications/message"})
    device.mcp.receive({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool("a")]}})
    assert device.got == []
    assert device.mcp.tools == ()


async def test_084_the_cursor_is_followed_verbatim(autojump_clock: MockClock) -> None:
    names = ["self.lamp.开", "self.b ", "self.lamp.关", "self.d/e", " self.f", "self.g"]
    device = FirmwareDevice([tool(name) for name in names], page_tools=2)
    await handshake(device)
    assert device.names() == names
    assert [message.get("params") for message in device.asked("tools/list")] == [
        None,
        {"cursor": "self.lamp.关"},
        {"cursor": " self.f"},
    ]
    assert device.mcp.ready.is_set()


class StuckDevice(FirmwareDevice):
    """py-xiaozhi with a tool that fills more than a page: it names it as the next for ever."""

    def _members(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method != "tools/list":
            return super()._members(method, params)
        return {"result": {"tools": [] if params else [tool("a")], "nextCursor": "too-large"}}


async def test_084_a_repeated_cursor_ends_the_list(autojump_clock: MockClock) -> None:
    device = StuckDevice([])
    with trio.fail_after(60):
        await handshake(device)
    assert len(device.asked("tools/list")) == 2
    assert device.names() == ["a"]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "not an object",
        '{"jsonrpc":"2.0","id":1,"result":{}}',
        [],
        5,
        {},
        {"jsonrpc": "2.0", "id": 999, "result": {"tools": []}},
        {"jsonrpc": "2.0", "id": "1", "result": {}},
        {"jsonrpc": "2.0", "id": True, "result": {}},
        {"jsonrpc": "2.0", "id": 999, "result": "x" * 65_536},
        {"jsonrpc": "2.0", "id": 999, "error": {"message": "x" * 65_536}},
        {"jsonrpc": "2.0", "error": []},
        {"method": {"a": 1}},
    ],
)
async def test_089_bad_payloads_are_ignored(payload: object, autojump_clock: MockClock) -> None:
    device = FirmwareDevice([tool("a"), tool("b"), tool("c")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run, 0.1)
        nursery.start_soon(device.mcp.run)
        for _ in range(5):
            device.mcp.receive(payload)
            await trio.sleep(0.06)
        with trio.fail_after(5):
            await device.mcp.ready.wait()
        nursery.cancel_scope.cancel()
    assert device.names() == ["a", "b", "c"]
    assert len(device.got) == 4


async def test_089_malformed_and_huge_tools_do_not_spoil_the_good_ones(
    autojump_clock: MockClock,
) -> None:
    device = FirmwareDevice(
        [
            tool("a"),
            tool("schema", inputSchema=[]),
            tool("huge", description="x" * 65_536),
            tool("required", inputSchema={"type": "object", "required": "x"}),
            tool("b"),
        ],
        page_tools=5,
    )
    await handshake(device)
    assert device.names() == ["a", "b"]


async def test_090_notifications_are_taken_and_requests_refused() -> None:
    device = FirmwareDevice([])
    device.mcp.receive({"jsonrpc": "2.0", "method": "notifications/x", "params": {"a": 1}})
    assert device.got == []
    device.mcp.receive({"jsonrpc": "2.0", "id": 41, "method": "roots/list"})
    assert len(device.got) == 1
    refusal = device.got[0]
    assert refusal["id"] == 41
    assert refusal["error"]["code"] == -32601
    assert isinstance(refusal["error"]["message"], str)
    assert "method" not in refusal
    assert "result" not in refusal


async def test_091_tools_for_a_person_are_neither_asked_for_nor_kept(
    autojump_clock: MockClock,
) -> None:
    device = FirmwareDevice(
        [tool("self.reboot", annotations={"audience": ["user"]}), tool("self.get_device_status")]
    )
    await handshake(device)
    assert device.names() == ["self.get_device_status"]
    assert all("withUserTools" not in message.get("params", {}) for message in device.got)


async def test_093_a_turn_that_starts_first_finds_no_tools_and_does_not_wait(
    autojump_clock: MockClock,
) -> None:
    device = FirmwareDevice([tool("a")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run, 1.0)
        nursery.start_soon(device.mcp.run)
        await trio.sleep(0.5)
        assert device.mcp.tools == ()
        assert not device.mcp.ready.is_set()
        await device.mcp.ready.wait()
        assert device.names() == ["a"]
        nursery.cancel_scope.cancel()
