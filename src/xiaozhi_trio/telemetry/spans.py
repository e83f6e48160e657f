"""Turns as OpenTelemetry spans: one for the turn, one below it for each stage.

Import it only where `extra.has_opentelemetry`. Spans are made after the fact, with the
times of the trace, and in the thread that sends them: the SDK's context, its batching
thread and its handlers at the end of the process are not used, for they know nothing
of Trio's tasks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

import xiaozhi_trio
from xiaozhi_trio.telemetry.turn_trace import Stage, StageOutcome, TurnTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

    from xiaozhi_trio.telemetry.counters import Counters

SEND_SECONDS: Final = 10.0
"""Longest time for one batch, with what the exporter tries again."""


class _Collected(SpanProcessor):
    """The spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class SpanSender:
    """Sends turns to a collector; an exporter of traces."""

    name = "spans"

    def __init__(self, exporter: SpanExporter, counters: Counters) -> None:
        """Counts `traces_not_sent` where the exporter fails; it logs the reason itself."""
        self._exporter = exporter
        self._counters = counters
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    def to(cls, endpoint: str, counters: Counters) -> SpanSender:
        """Send to the address of a collector, OTLP over HTTP.

        Headers, certificates and compression are taken from the environment
        (`OTEL_EXPORTER_OTLP_HEADERS`, …), the resource's attributes too.
        """
        return cls(OTLPSpanExporter(endpoint=endpoint, timeout=SEND_SECONDS), counters)

    async def take(self, traces: Sequence[TurnTrace]) -> None:
        """Send these; where it is cancelled, the thread ends on its own soon after `close`."""
        result = await trio.to_thread.run_sync(
            partial(_send, self._exporter, traces), limiter=self._limiter, abandon_on_cancel=True
        )
        if result is not SpanExportResult.SUCCESS:
            for _ in traces:
                self._counters.count("traces_not_sent")

    def close(self) -> None:
        """Let the exporter give up what it is trying."""
        self._exporter.shutdown()


def _send(exporter: SpanExporter, traces: Sequence[TurnTrace]) -> SpanExportResult:
    return exporter.export(spans_of(traces))


def spans_of(traces: Sequence[TurnTrace]) -> list[ReadableSpan]:
    """The spans of turns that are over; 1 ms for each."""
    collected = _Collected()
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": "xiaozhi-trio", "service.version": xiaozhi_trio.__version__}
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(collected)
    tracer = provider.get_tracer("xiaozhi_trio", xiaozhi_trio.__version__)
    for trace in traces:
        _make_turn(tracer, trace)
    return collected.spans


def _make_turn(tracer: Tracer, trace: TurnTrace) -> None:
    def unix_ns(at: float) -> int:
        return int((trace.began_unix + at - trace.began) * 1e9)

    over = trace.began if trace.concluded_at is None else trace.concluded_at
    root = tracer.start_span(
        f"turn {trace.occasion}".rstrip(),
        Context(),
        SpanKind.SERVER,
        start_time=unix_ns(trace.began),
        attributes={
            "xiaozhi.device": trace.device,
            "xiaozhi.session": trace.session,
            "xiaozhi.turn": trace.number,
            "xiaozhi.occasion": trace.occasion,
            "xiaozhi.outcome": trace.outcome,
            **{f"xiaozhi.{name}": length for name, length in trace.lengths.items()},
        },
    )
    for mark in trace.marks:
        attributes: dict[str, str | int] = {"xiaozhi.attempt": mark.attempt}
        if mark.reason:
            attributes["xiaozhi.reason"] = mark.reason
        root.add_event(mark.moment.value, attributes, unix_ns(mark.at))
    below = set_span_in_context(root, Context())
    parents: dict[int, Context] = {}
    for attempt in trace.attempts:
        if not attempt.speculative:
            continue
        ended = over if attempt.discarded_at is None else attempt.discarded_at
        span = tracer.start_span(
            "speculation",
            below,
            start_time=unix_ns(attempt.began),
            attributes={
                "xiaozhi.attempt": attempt.number,
                "xiaozhi.discarded": attempt.discarded_at is not None,
            },
        )
        parents[attempt.number] = set_span_in_context(span, Context())
        span.end(unix_ns(ended))
    for stage in trace.stages:
        _make_stage(tracer, stage, parents.get(stage.attempt, below), unix_ns)
    if trace.outcome == StageOutcome.FAILED.value:
        root.set_status(Status(StatusCode.ERROR, trace.outcome))
    root.end(unix_ns(over))


def _make_stage(
    tracer: Tracer, stage: Stage, parent: Context, unix_ns: Callable[[float], int]
) -> None:
    span: Span = tracer.start_span(
        stage.name,
        parent,
        start_time=unix_ns(stage.began),
        attributes={
            "xiaozhi.engine": stage.engine,
            "xiaozhi.attempt": stage.attempt,
            "xiaozhi.outcome": stage.outcome.value,
        },
    )
    if stage.category:
        span.set_attribute("error.type", stage.category)
        span.set_status(Status(StatusCode.ERROR, stage.category))
    span.end(unix_ns(stage.began if stage.ended is None else stage.ended))
