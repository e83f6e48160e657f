from __future__ import annotations

import sys

import pytest

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.telemetry import extra
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.telemetry import Telemetry

ENDPOINT = "http://127.0.0.1:9/v1/traces"


def health() -> dict[str, object]:
    return {}


@pytest.fixture
def no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("prometheus_client", "opentelemetry"):
        for name in [name for name in sys.modules if name.split(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(extra, "find_spec", missing)


def missing(module: str) -> None:
    if "." in module:
        raise ModuleNotFoundError(module)


@pytest.mark.usefixtures("no_extra")
async def test_without_the_extra_turns_are_kept_all_the_same(log) -> None:
    telemetry = Telemetry.of(TelemetrySettings(otlp_endpoint=ENDPOINT), Counters(), health)
    assert telemetry.metrics is None
    async with telemetry.exporting():
        telemetry.traces.begin(1, "typed").conclude("finished")
    assert len(telemetry.traces.turns()) == 1
    (line,) = [line for line in log if line["message"] == "no spans are sent"]
    assert (line["reason"], line["fix"]) == ("extra_missing", extra.INSTALL)


async def test_with_the_extra_turns_are_observed() -> None:
    pytest.importorskip("prometheus_client")
    telemetry = Telemetry.of(TelemetrySettings(), Counters(), health)
    assert telemetry.metrics is not None
    async with telemetry.exporting():
        telemetry.traces.begin(1, "typed").conclude("finished")
    page = await telemetry.metrics.page()
    assert b'xiaozhi_turns_total{occasion="typed",outcome="finished"} 1.0' in page


async def test_spans_are_sent_where_there_is_an_endpoint(monkeypatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from xiaozhi_trio.telemetry import spans

    exporter = InMemorySpanExporter()
    endpoints: list[str] = []

    def make(*, endpoint: str, timeout: float) -> InMemorySpanExporter:
        endpoints.append(endpoint)
        return exporter

    monkeypatch.setattr(spans, "OTLPSpanExporter", make)
    telemetry = Telemetry.of(TelemetrySettings(otlp_endpoint=ENDPOINT), Counters(), health)
    async with telemetry.exporting():
        telemetry.traces.begin(1, "typed").conclude("finished")
    assert endpoints == [ENDPOINT]
    assert [span.name for span in exporter.get_finished_spans()] == ["turn typed"]
