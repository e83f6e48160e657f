"""What the log and the counters are told of peers that do not come in, on either port.

Every one of them is counted. Of one address the log has one line a minute for each
reason, so that a scanner, or a device that tries again and again, does not bury the
rest of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio
from loguru import logger

from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.throttle import PERIOD_SECONDS, Throttle

if TYPE_CHECKING:
    from xiaozhi_trio.wire.dialect import Dialect
    from xiaozhi_trio.wire.endpoint import Endpoint
    from xiaozhi_trio.wire.refusal import HandshakeRefused


def shown(peer: Endpoint | None) -> str:
    """A peer in the log."""
    return "unknown" if peer is None else str(peer)


def _throttle() -> Throttle[tuple[str, str]]:
    return Throttle(clock=trio.current_time)


@attrs.frozen
class Reporter:
    """Logs and counts for one listening port."""

    counters: Counters
    speaks: str = "WebSocket"
    """What is spoken on the port, as its lines say."""
    _lines: Throttle[tuple[str, str]] = attrs.field(factory=_throttle, init=False)

    def refused(self, refusal: HandshakeRefused, peer: Endpoint | None) -> None:
        """A connection, or the upgrade that was asked for on it, was refused."""
        self.counters.count("handshakes_refused", reason=refusal.reason)
        self.tell(
            "WARNING",
            "handshake refused",
            peer,
            reason=refusal.reason,
            detail=refusal.message_en,
            fix=refusal.fix,
            status=refusal.status,
            browser=refusal.from_browser,
        )

    def stranger(self, dialect: Dialect, peer: Endpoint | None) -> None:
        """The peer spoke something that we do not."""
        self.counters.count("strangers", reason=dialect.reason)
        self.tell(
            "WARNING",
            f"peer does not speak {self.speaks}",
            peer,
            reason=dialect.reason,
            spoke=dialect.name,
            detail=dialect.explanation,
            fix=dialect.fix,
        )

    def left(self, detail: str, peer: Endpoint | None, *, has_spoken: bool) -> None:
        """The peer hung up before it had said what it wanted."""
        # A port probe connects and goes; that is nobody's business.
        level = "INFO" if has_spoken else "DEBUG"
        self.tell(level, "peer left during the handshake", peer, reason="peer_left", detail=detail)

    def tell(
        self, level: str, event: str, peer: Endpoint | None, *, reason: str, **facts: object
    ) -> None:
        """Log a line, unless there was one of this address and reason within the last minute.

        `event` and `reason` are our own words.
        """
        left_out = self._lines.admit(("unknown" if peer is None else peer.home, reason))
        if left_out is None:
            return
        if left_out:
            facts["left_out"] = left_out
        logger.bind(port=self.speaks, peer=shown(peer), reason=reason, **facts).log(level, event)

    async def tell_left_out(self) -> None:
        """Tell of the lines left out of those addresses that came no more; runs until cancelled."""
        while True:
            await trio.sleep(PERIOD_SECONDS)
            for (address, reason), left_out in self._lines.overdue():
                logger.bind(
                    port=self.speaks, peer=address, reason=reason, left_out=left_out
                ).warning("lines were left out")
