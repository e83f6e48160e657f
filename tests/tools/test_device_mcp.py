from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
import trio
from loguru import logger

from xiaozhi_trio import __version__
from xiaozhi_trio.tools.device_mcp import MAX_PAGES, DeviceMcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""The members `result` or `error` of the reply to a request; None is silence."""

TOKEN = "vision-token-s3cret"


class ScriptedDevice:
    """Answers each request with what `answer` gives, at once."""

    def __init__(self, answer: Answer) -> None:
        self.got: list[Mapping[str, Any]] = []
        self._answer = answer
        self.mcp = DeviceMcp(
            self._take,
            vision_url="http://192.0.2.1:8003/mcp/vision/explain",
            vision_token=TOKEN,
            initialize_seconds=10,
            page_seconds=5,
        )

    def _take(self, message: Mapping[str, Any]) -> None:
        self.got.append(message)
        if "id" in message and (members := self._answer(message)) is not None:
            self.mcp.receive({"jsonrpc": "2.0", "id": message["id"], **members})

    def methods(self) -> list[str]:
        return [message["method"] for message in self.got]

    def names(self) -> list[str]:
        return [tool.name for tool in self.mcp.tools]


def pages(*listed: Mapping[str, Any] | None) -> Answer:
    """A device that initializes and then answers `tools/list` with one page after another."""
    left = list(listed)

    def answer(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message["method"] == "initialize":
            return {"result": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}}
        return left.pop(0)

    return answer


@pytest.fixture
def log() -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    lines: list[tuple[str, str, dict[str, Any]]] = []

    def keep(message: Any) -> None:
        record = message.record
        lines.append((record["level"].name, record["message"], dict(record["extra"])))

    handler = logger.add(keep, level="DEBUG", format="{message}")
    yield lines
    logger.remove(handler)


async def test_the_handshake_in_order(log: list[tuple[str, str, dict[str, Any]]]) -> None:
    device = ScriptedDevice(pages({"result": {"tools": [{"name": "self.lamp.turn_on"}]}}))
    await device.mcp.run()
    assert device.got == [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2024-11-05",
                "capabilities": {
                    "roots": {"listChanged": True},
                    "sampling": {},
                    "vision": {
                        "url": "http://192.0.2.1:8003/mcp/vision/explain",
                        "token": TOKEN,
                    },
                },
                "clientInfo": {"name": "xiaozhi-trio", "version": __version__},
            },
        },
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    assert device.names() == ["self.lamp.turn_on"]
    assert device.mcp.ready.is_set()
    assert log == [("INFO", "device mcp ready", {"tools": 1})]


async def test_vision_is_there_though_empty() -> None:
    sent: list[Mapping[str, Any]] = []
    mcp = DeviceMcp(sent.append, vision_url="", vision_token="", initialize_seconds=0)
    await mcp.run()
    assert sent[0]["params"]["capabilities"]["vision"] == {"url": "", "token": ""}


async def test_a_device_that_does_not_answer_gives_one_line(
    log: list[tuple[str, str, dict[str, Any]]], autojump_clock: MockClock
) -> None:
    device = ScriptedDevice(lambda _: None)
    await device.mcp.run()
    assert trio.current_time() == pytest.approx(10)
    assert device.methods() == ["initialize"]
    assert device.mcp.tools == ()
    assert not device.mcp.ready.is_set()
    assert log == [
        (
            "WARNING",
            "device mcp handshake failed",
            {
                "reason": "no_reply",
                "method": "initialize",
                "problem": "initialize: no answer within 10 s",
            },
        )
    ]
    device.mcp.receive({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert device.methods() == ["initialize"]


async def test_a_refused_initialize_ends_the_handshake(
    log: list[tuple[str, str, dict[str, Any]]],
) -> None:
    device = ScriptedDevice(lambda _: {"error": {"message": "Method not implemented: initialize"}})
    await device.mcp.run()
    assert device.methods() == ["initialize"]
    assert [facts["reason"] for _, _, facts in log] == ["error_reply"]


async def test_the_pages_before_a_missing_one_are_kept(autojump_clock: MockClock) -> None:
    device = ScriptedDevice(pages({"result": {"tools": [{"name": "a"}], "nextCursor": "b"}}, None))
    await device.mcp.run()
    assert trio.current_time() == pytest.approx(5)
    assert device.names() == ["a"]
    assert not device.mcp.ready.is_set()


@pytest.mark.parametrize("result", [None, [], "x", {"tools": None}])
async def test_a_result_that_is_no_page_ends_the_handshake(
    result: object, log: list[tuple[str, str, dict[str, Any]]]
) -> None:
    device = ScriptedDevice(pages({"result": result}))
    await device.mcp.run()
    assert not device.mcp.ready.is_set()
    assert [(message, facts["reason"]) for _, message, facts in log] == [
        ("device mcp handshake failed", "tools_page")
    ]


async def test_cursors_go_round_without_end(log: list[tuple[str, str, dict[str, Any]]]) -> None:
    device = ScriptedDevice(
        pages(
            {"result": {"tools": [{"name": "a"}], "nextCursor": "b"}},
            {"result": {"tools": [{"name": "b"}], "nextCursor": "c"}},
            {"result": {"tools": [{"name": "c"}], "nextCursor": "b"}},
        )
    )
    await device.mcp.run()
    assert device.names() == ["a", "b", "c"]
    assert device.mcp.ready.is_set()
    assert ("WARNING", "device tool list cut", {"reason": "cursor_repeated"}) in log


async def test_pages_without_end(log: list[tuple[str, str, dict[str, Any]]]) -> None:
    counted = iter(range(1000))

    def answer(message: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"result": {"tools": [], "nextCursor": f"page {next(counted)}"}}

    device = ScriptedDevice(answer)
    await device.mcp.run()
    assert device.methods().count("tools/list") == MAX_PAGES
    cut = {"reason": "too_many_pages", "limit": MAX_PAGES}
    assert ("WARNING", "device tool list cut", cut) in log


async def test_a_cancelled_handshake_leaves_nothing(autojump_clock: MockClock) -> None:
    device = ScriptedDevice(lambda _: None)
    with trio.move_on_after(1) as scope:
        await device.mcp.run()
    assert scope.cancelled_caught
    device.mcp.receive({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert device.methods() == ["initialize"]
    assert not device.mcp.ready.is_set()


async def test_requests_go_on_after_the_handshake() -> None:
    device = ScriptedDevice(pages({"result": {"tools": []}}, {"result": {"content": []}}))
    await device.mcp.run()
    assert await device.mcp.request("tools/call", {"name": "a"}, within=1) == {"content": []}
    assert device.got[-1] == {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "tools/call",
        "params": {"name": "a"},
    }


async def test_the_token_is_never_logged(
    log: list[tuple[str, str, dict[str, Any]]], autojump_clock: MockClock
) -> None:
    device = ScriptedDevice(lambda _: None)
    device.mcp.receive({"jsonrpc": "2.0", "id": "x", "result": TOKEN})
    await device.mcp.run()
    assert log
    assert TOKEN not in repr(log) + repr(device.mcp)
