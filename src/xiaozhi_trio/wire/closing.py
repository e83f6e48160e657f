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
    """A word of our own such as `idle`, `hello_timeout`, `replaced`; at most 123 bytes of UTF-8."""


PEER_GONE = Closing(NORMAL, "peer_gone")
"""The peer hung up first, with or without a close frame: the normal end for firmware."""
