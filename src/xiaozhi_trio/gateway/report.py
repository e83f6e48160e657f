"""What the log and the counters are told of peers that do not come in.

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
    """Logs and counts for one gateway."""

    counters: Counters
    _lines: Throttle[tuple[str, str]] = attrs.field(factory=_throttle, init=False)

    def refused(self, refusal: HandshakeRefused, peer: Endpoint | None) -> None:
        """A handshake was refused."""
        self.counters.count("handshakes_refused", reason=refusal.reason)
        self._log(
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
        self._log(
            "WARNING",
            "peer does not speak WebSocket",
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
        self._log(level, "peer left during the handshake", peer, reason="peer_left", detail=detail)

    def _log(
        self, level: str, event: str, peer: Endpoint | None, *, reason: str, **facts: object
    ) -> None:
        left_out = self._lines.admit(("unknown" if peer is None else peer.home, reason))
        if left_out is None:
            return
        if left_out:
            facts["left_out"] = left_out
        logger.bind(peer=shown(peer), reason=reason, **facts).log(level, event)

    async def tell_left_out(self) -> None:
        """Tell of the lines left out of those addresses that came no more; runs until cancelled."""
        while True:
            await trio.sleep(PERIOD_SECONDS)
            for (address, reason), left_out in self._lines.overdue():
                logger.bind(peer=address, reason=reason, left_out=left_out).warning(
                    "lines were left out"
                )
