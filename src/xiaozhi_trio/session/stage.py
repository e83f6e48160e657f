"""The deadline of one stage of a turn (recognition, reply, synthesis)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Iterator


class StageDeadline:
    """How long an engine may stay silent; renewed whenever it gives something."""

    def __init__(self, scope: trio.CancelScope, seconds: float) -> None:
        self._scope = scope
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """The engine's turn: count from now."""
        self._scope.deadline = trio.current_time() + self._seconds

    def pause(self) -> None:
        """Our turn: what we wait for now is not the engine's fault."""
        self._scope.deadline = float("inf")


@contextmanager
def stage_deadline(stage: str, seconds: float) -> Iterator[StageDeadline]:
    """Cancel the block and raise `EngineError` where its engine stays silent for too long."""
    with trio.CancelScope() as scope:
        yield StageDeadline(scope, seconds)
    if scope.cancelled_caught:
        raise EngineError(
            f"nothing came for {seconds:g} s",
            engine=stage,
            category=EngineErrorCategory.TIMEOUT,
            retryable=True,
        )
