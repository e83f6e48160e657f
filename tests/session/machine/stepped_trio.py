"""A Trio run that stands still between the steps that a synchronous caller takes in it.

Hypothesis calls the rules of a state machine one after the other and looks at the
invariants between them, so that the world must be alive from rule to rule and must not
move while hypothesis thinks. Trio's guest mode gives both: the run is driven by whoever
calls its ticks, and here they are called only while a step is in progress. With a clock
that jumps as soon as all tasks wait, a tick never needs the thread in which a guest run
otherwise waits for the network, so that a run is as deterministic as its steps.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outcome import Outcome

T = TypeVar("T")


class SteppedTrio:
    """One Trio run on a virtual clock that begins at 0. It must be closed."""

    def __init__(self) -> None:
        self._ticks: deque[Callable[[], object]] = deque()
        self._end: Outcome[None] | None = None
        self._steps, steps = trio.open_memory_channel[_Step[Any]](1)
        self.clock = MockClock(autojump_threshold=0)
        trio.lowlevel.start_guest_run(
            self._live,
            steps,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._note_end,
            clock=self.clock,
        )

    def take(self, step: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run the step's coroutine to its end, and time with it; gives its result.

        The nursery in which tasks live on between the steps is its first argument.
        What the step or one of those tasks raises ends the run and is raised here, in the
        groups of its nurseries.
        """
        taken = _Step(lambda nursery: step(nursery, *args))
        self._steps.send_nowait(taken)
        while not taken.is_done:
            self._tick()
            if self._end is not None:
                self._end.unwrap()
        return taken.result

    def close(self) -> None:
        """Cancel what still runs, and wait for its end."""
        self._steps.close()
        while self._end is None:
            self._tick()

    def _tick(self) -> None:
        self._ticks.popleft()()

    def _note_end(self, end: Outcome[None]) -> None:
        self._end = end

    async def _live(self, steps: trio.MemoryReceiveChannel[_Step[Any]]) -> None:
        async with trio.open_nursery() as nursery:
            async for step in steps:
                await step.run(nursery)
            nursery.cancel_scope.cancel()


class _Step(Generic[T]):
    """A coroutine function, and what came of it."""

    result: T

    def __init__(self, function: Callable[[trio.Nursery], Awaitable[T]]) -> None:
        self._function = function
        self.is_done = False

    async def run(self, nursery: trio.Nursery) -> None:
        self.result = await self._function(nursery)
        self.is_done = True
