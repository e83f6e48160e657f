"""Conformance 82, 83, 89, 90 and 93 at the level of a session."""

from __future__ import annotations

import trio

MCP = {"features": {"mcp": True}}


async def answer_initialize(t) -> dict:
    request = (await t.device.wait_for("mcp")).body["payload"]
    await t.device.send_json(
        type="mcp",
        payload={
            "jsonrpc": "2.0",
            "id": request["id"],
            "result": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}},
        },
    )
    return request


async def test_082_the_handshake_of_a_session(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello(**MCP)
    initialize = await answer_initialize(t)
    assert initialize["method"] == "initialize"
    vision = initialize["params"]["capabilities"]["vision"]
    assert vision == {"url": "http://192.168.1.2:8003/mcp/vision/explain", "token": "token"}
    listing = (await t.device.wait_for("mcp", count=3)).body["payload"]
    methods = [event.body["payload"]["method"] for event in t.device.of_kind("mcp")]
    assert methods == ["initialize", "notifications/initialized", "tools/list"]
    assert isinstance(listing["id"], int)
    assert t.device.kinds[0] == "hello"


async def test_083_no_mcp_for_devices_without_it(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.send_json(
        type="mcp", payload={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    )
    await trio.sleep(20)
    assert not t.device.of_kind("mcp")


async def test_089_090_odd_payloads_do_no_harm(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello(**MCP)
    for payload in (
        None,
        "x",
        [],
        {},
        {"jsonrpc": "2.0", "id": 999, "result": {}},
        {"jsonrpc": "2.0", "method": "notifications/hello"},
        {"jsonrpc": "2.0", "id": 1, "result": "y" * 65_536},
    ):
        await t.device.send_json(type="mcp", payload=payload)
    await t.device.send_json(
        type="mcp", payload={"jsonrpc": "2.0", "id": 77, "method": "sampling/createMessage"}
    )
    await t.device.detect("still there?")
    await t.device.wait_for("tts stop")
    errors = [event.body["payload"].get("error") for event in t.device.of_kind("mcp")]
    assert -32601 in [error["code"] for error in errors if error]


async def test_093_a_turn_does_not_wait_for_the_tools(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello(**MCP)
    began = trio.current_time()
    await t.device.detect("hello?")
    stt = await t.device.wait_for("stt")
    assert stt.at - began < 0.1
    await t.device.wait_for("tts stop")


async def test_093_tools_that_never_come_do_not_end_the_session(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello(**MCP)
    await trio.sleep(60)
    await t.device.detect("hello?")
    await t.device.wait_for("tts stop")
    assert t.closing is None
