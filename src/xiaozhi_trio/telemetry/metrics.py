"""Metrics for Prometheus: how long turns and their stages take, and what was counted.

Import it only where `extra.has_prometheus`. All label values are words of our own:
each combination is kept for the life of the process.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import trio
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from xiaozhi_trio.telemetry.turn_trace import Moment, TurnTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from xiaozhi_trio.telemetry.counters import Count, Counters

_SECONDS: Final = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.07,
    0.11,
    0.2,
    0.3,
    0.4,
    0.6,
    0.8,
    1,
    1.5,
    2,
    3,
    5,
    10,
    30,
)
_TIMED: Final = (
    Moment.TRANSCRIPT,
    Moment.FIRST_TOKEN,
    Moment.FIRST_SENTENCE,
    Moment.FIRST_SOUND,
    Moment.SPEAKING,
    Moment.FIRST_FRAME,
    Moment.DRAINED,
)


class Metrics:
    """The metrics of one server; an exporter of traces."""

    name = "metrics"
    content_type = CONTENT_TYPE_LATEST
    """Of `page`."""

    def __init__(self, counters: Counters, health: Callable[[], Mapping[str, Any]]) -> None:
        """`health` gives what `/health` shows."""
        self._counters = counters
        self._health = health
        self._present = _Present()
        self._limiter = trio.CapacityLimiter(1)
        self._registry = CollectorRegistry()
        self._registry.register(self._present)
        ProcessCollector(registry=self._registry)
        self._turns = Counter(
            "xiaozhi_turns",
            "Turns that are over.",
            ("occasion", "outcome"),
            registry=self._registry,
        )
        self._moments = Histogram(
            "xiaozhi_turn_seconds",
            "From the end of the speech, or the beginning of a turn without any, to this moment; "
            "0 where it came before.",
            ("moment",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "xiaozhi_stage_seconds",
            "Length of a stage of a turn.",
            ("stage", "engine", "outcome"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._failures = Counter(
            "xiaozhi_stage_failures",
            "Stages that failed.",
            ("stage", "engine", "category"),
            registry=self._registry,
        )
        self._interruptions = Counter(
            "xiaozhi_interruptions",
            "Replies that fell silent.",
            ("reason",),
            registry=self._registry,
        )
        self._resumptions = Counter(
            "xiaozhi_false_interruptions",
            "Replies that went on after they fell silent.",
            registry=self._registry,
        )
        self._speculations = Counter(
            "xiaozhi_speculations",
            "Answers begun before the end of the speech was certain.",
            ("result",),
            registry=self._registry,
        )
        self._wasted = Counter(
            "xiaozhi_speculation_wasted_seconds",
            "Length of the stages of speculations that were discarded, and of early recognitions.",
            registry=self._registry,
        )

    async def page(self) -> bytes:
        """Everything as it is now, in Prometheus' text format."""
        # Both are of the event loop; the text, some milliseconds of work, is not.
        self._present.counts = self._counters.snapshot()
        self._present.health = self._health()
        return await trio.to_thread.run_sync(
            generate_latest, self._registry, limiter=self._limiter, abandon_on_cancel=True
        )

    async def take(self, traces: Sequence[TurnTrace]) -> None:
        """Observe these turns; 0.1 ms each."""
        for trace in traces:
            self.observe(trace)

    def close(self) -> None:
        """There is nothing to let go of."""

    def observe(self, trace: TurnTrace) -> None:
        """Observe a turn that is over."""
        self._turns.labels(trace.occasion, trace.outcome).inc()
        for moment in _TIMED:
            at = trace.time_of(moment)
            if at is not None:
                self._moments.labels(moment.value).observe(max(at - trace.origin, 0.0))
        for mark in trace.marks:
            if mark.moment is Moment.INTERRUPTED:
                self._interruptions.labels(mark.reason or "unknown").inc()
            elif mark.moment is Moment.RESUMED:
                self._resumptions.inc()
        discarded = {a.number for a in trace.attempts if a.discarded_at is not None}
        for attempt in trace.attempts:
            if attempt.speculative:
                result = "discarded" if attempt.number in discarded else "used"
                self._speculations.labels(result).inc()
        for stage in trace.stages:
            seconds = (stage.ended or stage.began) - stage.began
            labels = (stage.name, stage.engine, stage.outcome.value)
            self._stages.labels(*labels).observe(seconds)
            if stage.category:
                self._failures.labels(stage.name, stage.engine, stage.category).inc()
        self._wasted.inc(trace.wasted_seconds)


class _Present(Collector):
    """What is not observed turn by turn but asked for."""

    def __init__(self) -> None:
        self.counts: Sequence[Count] = ()
        self.health: Mapping[str, Any] = {}

    def collect(self) -> Iterator[Metric]:
        yield from _counted(self.counts)
        if self.health:
            yield from _healthy(self.health)


def _counted(counts: Sequence[Count]) -> Iterator[Metric]:
    """The server's own counters."""
    for name, group in groupby(counts, key=attrgetter("name")):
        alike = list(group)
        labels = sorted({label for count in alike for label, _ in count.labels})
        family = CounterMetricFamily(f"xiaozhi_{name}", "Since the start.", labels=labels)
        for count in alike:
            values = dict(count.labels)
            family.add_metric([values.get(label, "") for label in labels], count.value)
        yield family


def _healthy(health: Mapping[str, Any]) -> Iterator[Metric]:
    """What `/health` shows, as numbers."""
    about = GaugeMetricFamily("xiaozhi_server", "The server.", labels=("version", "status"))
    about.add_metric((health["version"], health["status"]), 1)
    yield about
    yield GaugeMetricFamily("xiaozhi_uptime_seconds", "Since the start.", health["uptime_seconds"])
    yield GaugeMetricFamily("xiaozhi_sessions", "Devices connected.", health["sessions"])
    engines = GaugeMetricFamily(
        "xiaozhi_engine_ready", "1 where the engine serves.", labels=("kind", "engine", "state")
    )
    for kind, engine in health["engines"].items():
        ready = float(engine["state"] == "ready")
        engines.add_metric((kind, engine["engine"], engine["state"]), ready)
    yield engines
