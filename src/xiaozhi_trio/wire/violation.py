"""A peer broke the protocol in one message; the connection goes on without that message."""

from __future__ import annotations


class ProtocolViolation(Exception):
    """One message of a peer cannot be taken for what it claims to be."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """A stable word for counters and tests, such as `payload_size_mismatch`."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"
