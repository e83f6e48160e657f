"""A circuit breaker: an engine that keeps failing is left alone for a while.

Closed, requests go through, and failures in a row are counted. Open, nothing goes
through. When the pause is over one request, the probe, finds out whether the engine
answers again, while the others still keep away.

Time is Trio's, so that a virtual clock governs it. A cancelled request says nothing
of its engine: neither success nor failure, and a cancelled probe makes room for
the next one.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class CircuitStatus(enum.Enum):
    """What a breaker does with requests."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """The pause is over: one request at a time is let through."""


class CircuitBreaker:
    """The breaker of one engine."""

    def __init__(self, *, failures: int, pause_seconds: float) -> None:
        """It opens after `failures` in a row, for `pause_seconds`."""
        self._limit = failures
        self._pause = pause_seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._probe: Permit | None = None

    @property
    def status(self) -> CircuitStatus:
        """What it does now."""
        if self._opened_at is None:
            return CircuitStatus.CLOSED
        return CircuitStatus.OPEN if self.seconds_left else CircuitStatus.HALF_OPEN

    @property
    def seconds_left(self) -> float:
        """How long it stays open; 0 where it is not."""
        if self._opened_at is None:
            return 0.0
        return max(self._opened_at + self._pause - trio.current_time(), 0.0)

    @property
    def admits(self) -> bool:
        """A request made now would be let through."""
        status = self.status
        return status is CircuitStatus.CLOSED or (
            status is CircuitStatus.HALF_OPEN and self._probe is None
        )

    @contextmanager
    def permit(self) -> Iterator[Permit]:
        """Let one request through; ask `admits` right before, with no await in between.

        The block is as long as the request. Raises RuntimeError where `admits` is false.
        """
        if not self.admits:
            raise RuntimeError("the circuit is open; ask `admits` first")
        permit = Permit(self)
        if self._opened_at is not None:
            self._probe = permit
        try:
            yield permit
        finally:
            if self._probe is permit:
                self._probe = None

    def _answered(self, permit: Permit) -> bool:
        if self._probe is not permit:
            return False
        self._probe = self._opened_at = None
        self._failures = 0
        return True

    def _completed(self) -> None:
        if self._opened_at is None:
            self._failures = 0

    def _failed(self, permit: Permit) -> bool:
        if self._probe is permit:
            self._probe = None
            self._opened_at = trio.current_time()
            return False
        # A request from before it opened has nothing new to tell.
        if self._opened_at is not None:
            return False
        self._failures += 1
        if self._failures < self._limit:
            return False
        self._opened_at = trio.current_time()
        return True


class Permit:
    """One request that was let through; tell it what came of the request."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def answered(self) -> bool:
        """The engine began to answer. True where that closed the circuit."""
        return self._breaker._answered(self)  # noqa: SLF001 - the other half of one thing

    def completed(self) -> None:
        """The answer came to its end."""
        self._breaker._completed()  # noqa: SLF001

    def failed(self) -> bool:
        """The engine failed. True where that opened a circuit that was closed."""
        return self._breaker._failed(self)  # noqa: SLF001
