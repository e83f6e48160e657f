from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from xiaozhi_trio.telemetry.counters import Count, Counters
from xiaozhi_trio.telemetry.turn_trace import Moment, TurnTrace

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from xiaozhi_trio.telemetry.spans import SpanSender, spans_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

BEGAN = 1_700_000_000.0


async def fail_after(pause: float) -> None:
    await trio.sleep(pause)
    raise ValueError("secret words")


async def a_turn() -> TurnTrace:
    trace = TurnTrace(number=5, occasion="spoken", device="aa", session="s1", began_unix=BEGAN)
    trace.mark(Moment.VOICE_START)
    for _ in range(2):
        await trio.sleep(1)
        attempt = trace.attempt(speculative=True)
        with trio.move_on_after(0.25), attempt.stage("asr", engine="whisper"):
            await trio.sleep_forever()
        attempt.discard()
    trace.mark(Moment.COMMITTED_END)
    trace.attempt()
    with pytest.raises(ValueError, match="secret"), trace.stage("llm", engine="llama"):
        await fail_after(0.5)
    trace.mark(Moment.INTERRUPTED, reason="noise")
    trace.measure(transcript_characters=3)
    trace.conclude("failed")
    return trace


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.start_time / 1e9 - BEGAN, span.end_time / 1e9 - BEGAN)


async def test_a_turn_is_a_tree_of_spans_with_the_times_of_the_trace(autojump_clock) -> None:
    spans = spans_of([await a_turn()])
    (root,) = [span for span in spans if span.parent is None]
    assert root.name == "turn spoken"
    assert seconds(root) == pytest.approx((0, 3.0))
    assert dict(root.attributes) == {
        "xiaozhi.device": "aa",
        "xiaozhi.session": "s1",
        "xiaozhi.turn": 5,
        "xiaozhi.occasion": "spoken",
        "xiaozhi.outcome": "failed",
        "xiaozhi.transcript_characters": 3,
    }
    assert root.status.status_code is StatusCode.ERROR
    assert [(e.name, e.timestamp / 1e9 - BEGAN) for e in root.events] == [
        ("voice_start", pytest.approx(0)),
        ("committed_end", pytest.approx(2.5)),
        ("interrupted", pytest.approx(3.0)),
    ]
    assert root.resource.attributes["service.name"] == "xiaozhi-trio"

    speculations = [span for span in spans if span.name == "speculation"]
    assert [seconds(span) for span in speculations] == [
        pytest.approx((1, 1.25)),
        pytest.approx((2.25, 2.5)),
    ]
    heard = [span for span in spans if span.name == "asr"]
    assert [span.parent.span_id for span in heard] == [
        span.context.span_id for span in speculations
    ]
    assert {span.attributes["xiaozhi.outcome"] for span in heard} == {"cancelled"}

    (thought,) = [span for span in spans if span.name == "llm"]
    assert thought.parent.span_id == root.context.span_id
    assert seconds(thought) == pytest.approx((2.5, 3.0))
    assert thought.attributes["error.type"] == "ValueError"
    assert thought.status.status_code is StatusCode.ERROR
    assert "secret" not in "".join(span.to_json() for span in spans)


async def test_two_turns_are_two_trees(autojump_clock) -> None:
    spans = spans_of([await a_turn(), await a_turn()])
    assert len({span.context.trace_id for span in spans}) == 2
    assert len(spans) == 12


async def test_turns_are_sent_in_a_thread() -> None:
    trace = TurnTrace(number=1, occasion="typed")
    trace.conclude("finished")
    threads: list[int] = []

    class Exporter(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            threads.append(threading.get_ident())
            return super().export(spans)

    exporter, counters = Exporter(), Counters()
    sender = SpanSender(exporter, counters)
    await sender.take([trace])
    sender.close()
    assert [span.name for span in exporter.get_finished_spans()] == ["turn typed"]
    assert threads != [threading.get_ident()]
    assert counters.snapshot() == ()


async def test_turns_that_could_not_be_sent_are_counted() -> None:
    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.FAILURE

    counters = Counters()
    traces = [TurnTrace(number=number, occasion="typed") for number in (1, 2)]
    await SpanSender(Exporter(), counters).take(traces)
    assert counters.snapshot() == (Count("traces_not_sent", (), 2),)


async def test_a_collector_that_does_not_answer_keeps_nobody_from_leaving() -> None:
    closed, returned = threading.Event(), threading.Event()

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            closed.wait(3)
            returned.set()
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            closed.set()

    sender = SpanSender(Exporter(), Counters())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.take, [])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not returned.is_set()
    sender.close()
    assert await trio.to_thread.run_sync(returned.wait, 2)


@pytest.mark.sockets
async def test_spans_arrive_at_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    trace = TurnTrace(number=1, occasion="typed")
    trace.conclude("finished")
    requests: list[tuple[bytes, bytes]] = []

    async def collect(stream: trio.SocketStream) -> None:
        received = b""
        async for data in stream:
            received += data
            head, _, body = received.partition(b"\r\n\r\n")
            length = [
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ]
            if length and len(body) == length[0]:
                requests.append((head, body))
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                received = b""

    async with trio.open_nursery() as nursery:
        listeners: list[Any] = await nursery.start(
            partial(trio.serve_tcp, collect, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        counters = Counters()
        sender = SpanSender.to(f"http://127.0.0.1:{port}/v1/traces", counters)
        with trio.fail_after(10):
            await sender.take([trace])
        sender.close()
        nursery.cancel_scope.cancel()
    ((head, body),) = requests
    assert head.startswith(b"POST /v1/traces ")
    assert b"x-key: abc" in head.lower()
    sent = ExportTraceServiceRequest.FromString(body)
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "turn typed"
    assert counters.snapshot() == ()
