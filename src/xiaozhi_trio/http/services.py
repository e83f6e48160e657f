"""What the HTTP endpoints need of the rest of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.http.advertise import lan_addresses
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.report import Reporter
from xiaozhi_trio.telemetry.telemetry import Telemetry


class TokenIssuer(Protocol):
    """Who makes the tokens that devices bring to the WebSocket port."""

    def issue(self, client_id: str, device_id: str) -> str:
        """A token for this device that is valid now.

        The same one for a while: firmware writes each new one to its flash memory.
        """


@attrs.frozen(kw_only=True)
class HttpServices:
    """What the application is built on."""

    settings: Settings
    tokens: TokenIssuer
    websocket_port: Callable[[], int]
    """The port the gateway is bound to, which is not the setting where that is 0."""
    health: Callable[[], Mapping[str, Any]]
    """The JSON object of `/health`: status, version, uptime_seconds, sessions, engines."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""
    lan: Callable[[], Sequence[str]] = lan_addresses
    counters: Counters = attrs.field(factory=Counters)
    """Gets `http_requests_refused` by reason and `http_request_failures`."""
    telemetry: Telemetry = attrs.field(factory=Telemetry)
    """What `/xiaozhi/traces` and `/metrics` tell."""
    reporter: Reporter = attrs.field(init=False)
    """Tells of connections and requests that are refused."""

    @reporter.default
    def _make_reporter(self) -> Reporter:
        return Reporter(self.counters, speaks="HTTP")
