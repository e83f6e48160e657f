"""The turns of late: the last ones of each device, and who else is told of them."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio
from loguru import logger

from xiaozhi_trio.telemetry.turn_trace import TurnTrace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.config.settings import TelemetrySettings

Listener: TypeAlias = Callable[[TurnTrace], None]
"""Is told of a turn that is over; must neither wait nor raise."""


@attrs.frozen
class KeptTurn:
    """A turn that is over."""

    serial: int
    """Rises from turn to turn of the process, from 1."""
    trace: TurnTrace


class TraceKeeper:
    """The last turns of the devices that were heard of last."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self._turns = settings.turns_per_device
        self._most_devices = settings.devices
        self._devices: OrderedDict[str, deque[KeptTurn]] = OrderedDict()
        self._listeners: list[Listener] = []
        self.serial = 0
        """Of the newest turn."""

    def begin(
        self,
        number: int,
        occasion: str,
        *,
        device: str = "",
        session: str = "",
        at: float | None = None,
    ) -> TurnTrace:
        """The trace of a turn, kept and logged once it is concluded.

        `at` is the Trio time at which it began, where that is not now.
        """
        trace = TurnTrace(
            number=number,
            occasion=occasion,
            device=device,
            session=session,
            on_conclusion=self._concluded,
        )
        if at is not None:
            trace.began_unix -= trio.current_time() - at
            trace.began = at
        return trace

    @contextmanager
    def telling(self, listener: Listener) -> Iterator[None]:
        """For the length of the block, tell this one too of every turn that is over."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def devices(self) -> tuple[str, ...]:
        """The devices whose turns are kept, the one heard of last at the end."""
        return tuple(self._devices)

    def turns(
        self, device: str | None = None, *, last: int = 20, after: int = 0
    ) -> tuple[KeptTurn, ...]:
        """The `last` turns of one device or of all, of those newer than the serial number `after`.

        The newest is at the end.
        """
        # A turn moves its device to the end, so these have all that can be asked for.
        names = [device] if device is not None else islice(reversed(self._devices), last)
        newest = [
            turn
            for name in names
            for turn in islice(reversed(self._devices.get(name, ())), last)
            if turn.serial > after
        ]
        return tuple(heapq.nlargest(last, newest, key=attrgetter("serial"))[::-1])

    def _concluded(self, trace: TurnTrace) -> None:
        # Who interrupts a turn does so outside of its logging context.
        logger.bind(**trace.as_fields()).info("turn over")
        self.serial += 1
        if self._turns:
            self._keep(KeptTurn(self.serial, trace))
        for listener in self._listeners:
            listener(trace)

    def _keep(self, turn: KeptTurn) -> None:
        device = turn.trace.device
        turns = self._devices.get(device)
        if turns is None:
            turns = self._devices[device] = deque(maxlen=self._turns)
            if len(self._devices) > self._most_devices:
                self._devices.popitem(last=False)
        self._devices.move_to_end(device)
        turns.append(turn)
