"""What a peer is told that is not let in: the same words for it, the log and the counters."""

from __future__ import annotations

import attrs


@attrs.define(kw_only=True, eq=False)
class HandshakeRefused(Exception):
    """A handshake that ends here. Holds nothing secret."""

    reason: str
    """A stable word for programs and counters, such as `token_expired`."""
    message_zh: str
    message_en: str
    """What came and what was expected."""
    fix: str
    """What to change, for the person who reads the log."""
    status: int = 401
    """HTTP status of the answer."""
    error: str = "unauthorized"
    """The kind of refusal; all that concern the identity are `unauthorized`."""
    from_browser: bool = False
    """The peer cannot read a refused upgrade and is told over the WebSocket."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers of the HTTP answer."""

    @property
    def message(self) -> str:
        """Both languages, as the peer is told it."""
        return f"{self.message_zh} / {self.message_en}"

    def __str__(self) -> str:
        return f"{self.reason}: {self.message_en}; {self.fix}"
