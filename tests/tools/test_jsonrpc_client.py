from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from loguru import logger

from xiaozhi_trio.tools.jsonrpc_client import (
    MAX_COMPLAINTS,
    MAX_REFUSALS,
    CallError,
    CallRefusedError,
    CallTimeoutError,
    JsonRpcClient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio.testing import MockClock


class Peer:
    """What was sent to the peer."""

    def __init__(self) -> None:
        self.got: list[Mapping[str, Any]] = []
        self.client = JsonRpcClient(self.got.append)

    def answer(self, request_id: object, result: object) -> None:
        self.client.receive({"jsonrpc": "2.0", "id": request_id, "result": result})


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def log() -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    lines: list[tuple[str, str, dict[str, Any]]] = []

    def keep(message: Any) -> None:
        record = message.record
        lines.append((record["level"].name, record["message"], dict(record["extra"])))

    handler = logger.add(keep, level="DEBUG", format="{message}")
    yield lines
    logger.remove(handler)


async def test_answers_find_their_requests_in_any_order(
    peer: Peer, autojump_clock: MockClock
) -> None:
    results: dict[str, object] = {}

    async def ask(method: str) -> None:
        results[method] = await peer.client.request(method, within=5)

    async with trio.open_nursery() as nursery:
        for method in ("a", "b", "c"):
            nursery.start_soon(ask, method)
        await trio.testing.wait_all_tasks_blocked()
        ids = {message["method"]: message["id"] for message in peer.got}
        for method in ("c", "a", "b"):
            peer.answer(ids[method], method.upper())
    assert results == {"a": "A", "b": "B", "c": "C"}
    assert len(set(ids.values())) == 3
    assert all(type(request_id) is int for request_id in ids.values())


async def test_an_answer_within_the_send_is_taken() -> None:
    def reply(message: Mapping[str, Any]) -> None:
        client.receive({"jsonrpc": "2.0", "id": message["id"], "result": "at once"})

    client = JsonRpcClient(reply)
    assert await client.request("m", within=1) == "at once"


async def test_a_null_result_is_a_result(peer: Peer, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer_soon, peer, None)
    assert await peer.client.request("m", within=1) is None


async def answer_soon(peer: Peer, result: object) -> None:
    await trio.testing.wait_all_tasks_blocked()
    peer.answer(peer.got[-1]["id"], result)


async def test_silence_is_a_timeout(peer: Peer, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(CallTimeoutError, match=r"^tools/list: no answer within 2\.5 s$") as raised:
        await peer.client.request("tools/list", within=2.5)
    assert trio.current_time() - began == pytest.approx(2.5)
    assert raised.value.reason == "no_reply"


async def test_an_error_reply_is_raised_with_its_text(peer: Peer, nursery: trio.Nursery) -> None:
    async def refuse() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.client.receive({"jsonrpc": "2.0", "id": 1, "error": {"message": "Unknown tool: x"}})

    nursery.start_soon(refuse)
    with pytest.raises(CallRefusedError, match=r"^m: Unknown tool: x$") as raised:
        await peer.client.request("m", within=1)
    assert raised.value.code is None
    assert isinstance(raised.value, CallError)


async def test_an_error_reply_without_text_says_so(peer: Peer, nursery: trio.Nursery) -> None:
    async def refuse() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.client.receive({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603}})

    nursery.start_soon(refuse)
    with pytest.raises(CallRefusedError, match="an error without a message") as raised:
        await peer.client.request("m", within=1)
    assert raised.value.code == -32603


async def test_a_late_answer_reaches_nobody_and_its_id_is_not_used_again(
    peer: Peer, log: list[tuple[str, str, dict[str, Any]]], autojump_clock: MockClock
) -> None:
    with pytest.raises(CallTimeoutError):
        await peer.client.request("slow", within=1)
    late = peer.got[0]["id"]

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask() -> None:
            assert await peer.client.request("next", within=5) == "right"

        await trio.testing.wait_all_tasks_blocked()
        assert peer.got[1]["id"] != late
        peer.answer(late, "wrong")
        await trio.testing.wait_all_tasks_blocked()
        peer.answer(peer.got[1]["id"], "right")
    assert len(peer.got) == 2
    assert ("DEBUG", "mcp reply without a request ignored", {"id": late}) in log


async def test_of_two_answers_the_first_counts(peer: Peer, nursery: trio.Nursery) -> None:
    async def answer_twice() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.answer(1, "first")
        peer.answer(1, "second")

    nursery.start_soon(answer_twice)
    assert await peer.client.request("m", within=1) == "first"


async def test_a_cancelled_request_is_forgotten(peer: Peer, autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await peer.client.request("m", within=60)
    assert scope.cancelled_caught
    assert not peer.client._waiters
    peer.answer(1, "late")
    assert len(peer.got) == 1


async def test_an_answer_taken_before_the_deadline_counts_though_it_is_read_after(
    peer: Peer, mock_clock: MockClock
) -> None:
    async def answer() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.answer(1, "just in time")
        mock_clock.jump(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await peer.client.request("m", within=1) == "just in time"


async def test_a_send_that_fails_leaves_nothing_waiting() -> None:
    def broken(_: object) -> None:
        raise trio.ClosedResourceError

    client = JsonRpcClient(broken)
    with pytest.raises(trio.ClosedResourceError):
        await client.request("m", within=1)
    assert not client._waiters


def test_notifications_are_sent_without_an_id(peer: Peer) -> None:
    peer.client.notify("notifications/initialized")
    assert peer.got == [{"jsonrpc": "2.0", "method": "notifications/initialized"}]


def test_what_the_peer_asks_is_refused_a_bounded_number_of_times(peer: Peer) -> None:
    for request_id in range(MAX_REFUSALS + 10):
        peer.client.receive({"jsonrpc": "2.0", "id": request_id, "method": "sampling/x"})
    assert len(peer.got) == MAX_REFUSALS
    assert [reply["id"] for reply in peer.got] == list(range(MAX_REFUSALS))
    assert {reply["error"]["code"] for reply in peer.got} == {-32601}


def test_malformed_payloads_are_logged_a_bounded_number_of_times(
    peer: Peer, log: list[tuple[str, str, dict[str, Any]]]
) -> None:
    for _ in range(MAX_COMPLAINTS + 10):
        peer.client.receive("not an object")
    assert [message for _, message, _ in log] == ["mcp message ignored"] * MAX_COMPLAINTS
    level, _, facts = log[0]
    assert level == "WARNING"
    assert facts["reason"] == "jsonrpc_not_object"
    assert "expected an object" in facts["problem"]
    assert [facts["last_shown"] for _, _, facts in log] == [False] * (MAX_COMPLAINTS - 1) + [True]
    assert peer.got == []


def test_an_error_reply_to_nothing_is_ignored(
    peer: Peer, log: list[tuple[str, str, dict[str, Any]]]
) -> None:
    peer.client.receive({"jsonrpc": "2.0", "id": None, "error": {"message": "parse error"}})
    assert log == [("DEBUG", "mcp reply without a request ignored", {"id": None})]
