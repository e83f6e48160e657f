"""Why and with which WebSocket code a connection ends."""

from __future__ import annotations

import attrs

NORMAL = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011


@attrs.frozen
class Closing:
    """The end of a connection as the peer, the log and the counters are told it."""

    code: int
    """RFC 6455 close code."""
    reason: str
    """A stable word of our own such as `idle`, `hello_timeout`, `replaced`."""
    detail: str = ""
    """What came and what was expected, where the reason alone does not say; ASCII."""
    fix: str = ""
    """What to change, for the person who reads the log."""

    @property
    def told(self) -> str:
        """What the close frame says: at most 123 bytes of UTF-8 (RFC 6455, 5.5)."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


PEER_GONE = Closing(NORMAL, "peer_gone")
"""The peer hung up first, with or without a close frame: the normal end for firmware."""
