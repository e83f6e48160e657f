"""What one server tells of itself, and to whom."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from loguru import logger

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.telemetry import extra
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.trace_export import TraceExporter, exporting
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from xiaozhi_trio.telemetry.metrics import Metrics


class Telemetry:
    """Counters, traces and metrics of one server."""

    def __init__(
        self,
        settings: TelemetrySettings | None = None,
        counters: Counters | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """There are no `metrics` without the extra."""
        self.settings = settings or TelemetrySettings()
        self.counters = counters or Counters()
        self.metrics = metrics
        self.traces = TraceKeeper(self.settings)

    @classmethod
    def of(
        cls,
        settings: TelemetrySettings,
        counters: Counters,
        health: Callable[[], Mapping[str, Any]],
    ) -> Telemetry:
        """With metrics where their library is installed; `health` gives what `/health` shows."""
        metrics = None
        if extra.has_prometheus():
            from xiaozhi_trio.telemetry.metrics import Metrics

            metrics = Metrics(counters, health)
        return cls(settings, counters, metrics)

    @asynccontextmanager
    async def exporting(self) -> AsyncIterator[None]:
        """For the length of the block, observe and send the turns that are over."""
        exporters: list[TraceExporter] = []
        if self.metrics is not None:
            exporters.append(self.metrics)
        if self.settings.otlp_endpoint:
            exporters += await self._span_sender(self.settings.otlp_endpoint)
        async with exporting(self.traces, exporters, self.counters):
            yield

    async def _span_sender(self, endpoint: str) -> list[TraceExporter]:
        if not extra.has_opentelemetry():
            logger.bind(reason="extra_missing", fix=extra.INSTALL).error("no spans are sent")
            return []
        # Its libraries take half a second to import.
        return [await trio.to_thread.run_sync(_make_span_sender, endpoint, self.counters)]


def _make_span_sender(endpoint: str, counters: Counters) -> TraceExporter:
    from xiaozhi_trio.telemetry.spans import SpanSender

    return SpanSender.to(endpoint, counters)
