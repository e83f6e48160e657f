"""The turns of late: the last ones of each device, and who else is told of them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import trio
from loguru import logger

from xiaozhi_trio.telemetry.turn_trace import TurnTrace

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import TelemetrySettings

Listener: TypeAlias = Callable[[TurnTrace], None]
"""Is told of a turn that is over; must neither wait nor raise."""


class TraceKeeper:
    """The last turns of the devices that were heard of last."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self._turns = settings.turns_per_device
        self._most_devices = settings.devices
        self._devices: OrderedDict[str, deque[TurnTrace]] = OrderedDict()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Tell this one, too, of every turn from now on."""
        self._listeners.append(listener)

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

    def devices(self) -> tuple[str, ...]:
        """The devices whose turns are kept, the one heard of last at the end."""
        return tuple(self._devices)

    def turns(self, device: str) -> tuple[TurnTrace, ...]:
        """The last turns of one device, the newest at the end."""
        return tuple(self._devices.get(device, ()))

    def _concluded(self, trace: TurnTrace) -> None:
        # Who interrupts a turn does so outside of its logging context.
        logger.bind(**trace.as_fields()).info("turn over")
        if self._turns:
            self._keep(trace)
        for listener in self._listeners:
            listener(trace)

    def _keep(self, trace: TurnTrace) -> None:
        turns = self._devices.get(trace.device)
        if turns is None:
            turns = self._devices[trace.device] = deque(maxlen=self._turns)
            if len(self._devices) > self._most_devices:
                self._devices.popitem(last=False)
        self._devices.move_to_end(trace.device)
        turns.append(trace)
