"""The libraries of the optional extra `telemetry`, which nothing else needs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

INSTALL: Final = 'pip install "xiaozhi-trio[telemetry]"'
"""What to do where one is missing."""


def has_prometheus() -> bool:
    """Whether metrics can be given out."""
    return _is_there("prometheus_client")


def has_opentelemetry() -> bool:
    """Whether spans can be sent."""
    return _is_there("opentelemetry.sdk.trace") and _is_there(
        "opentelemetry.exporter.otlp.proto.http"
    )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # One of the packages around it is missing.
        return False
