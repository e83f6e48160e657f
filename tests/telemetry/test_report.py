"""What the log is told, on a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.report import Reporter
from xiaozhi_trio.wire import dialect
from xiaozhi_trio.wire.endpoint import Endpoint
from xiaozhi_trio.wire.refusal import HandshakeRefused

ONE, TWO = Endpoint.of("192.0.2.1", 1), Endpoint.of("192.0.2.2", 1)
REFUSAL = HandshakeRefused(reason="r", message_zh="zh", message_en="en", fix="f")


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(Counters())


async def test_one_line_a_minute_for_each_address_and_reason(
    reporter: Reporter, log: list[dict[str, Any]], autojump_clock: trio.testing.MockClock
) -> None:
    for port in range(5):
        reporter.refused(REFUSAL, Endpoint.of("192.0.2.1", port))
    reporter.refused(REFUSAL, TWO)
    reporter.refused(REFUSAL, None)
    reporter.stranger(dialect.SSH, ONE)
    assert [(line["peer"], line["reason"]) for line in log] == [
        ("192.0.2.1:0", "r"),
        ("192.0.2.2:1", "r"),
        ("unknown", "r"),
        ("192.0.2.1:1", "ssh_client"),
    ]
    assert not any("left_out" in line for line in log)
    log.clear()
    await trio.sleep(60)
    reporter.refused(REFUSAL, ONE)
    reporter.refused(REFUSAL, TWO)
    assert [line.get("left_out") for line in log] == [4, None]
    counted = {count.name: count.value for count in reporter.counters.snapshot()}
    assert counted == {"handshakes_refused": 9, "strangers": 1}


async def test_a_line_says_which_port_it_is_about(
    reporter: Reporter, log: list[dict[str, Any]], autojump_clock: trio.testing.MockClock
) -> None:
    for each in (reporter, Reporter(Counters(), speaks="HTTP")):
        each.stranger(dialect.SSH, ONE)
        each.refused(REFUSAL, ONE)
    assert [(line["message"], line["port"]) for line in log] == [
        ("peer does not speak WebSocket", "WebSocket"),
        ("handshake refused", "WebSocket"),
        ("peer does not speak HTTP", "HTTP"),
        ("handshake refused", "HTTP"),
    ]


async def test_what_was_left_out_is_told_although_nobody_comes_again(
    reporter: Reporter,
    log: list[dict[str, Any]],
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    nursery.start_soon(reporter.tell_left_out)
    for _ in range(30):
        reporter.stranger(dialect.RDP, ONE)
    reporter.stranger(dialect.RDP, TWO)
    await trio.sleep(300)
    told = [line for line in log if line["message"] == "lines were left out"]
    assert [(line["peer"], line["reason"], line["left_out"]) for line in told] == [
        ("192.0.2.1", "rdp_scanner", 29)
    ]
    nursery.cancel_scope.cancel()


async def test_peers_that_leave(
    reporter: Reporter, log: list[dict[str, Any]], autojump_clock: trio.testing.MockClock
) -> None:
    reporter.left("gone", ONE, has_spoken=False)
    reporter.left("gone", ONE, has_spoken=True)
    reporter.left("gone", TWO, has_spoken=True)
    assert [line["level"] for line in log] == ["DEBUG", "INFO"]
