"""What happened in a conversation, seen from every side and in order."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Side(enum.Enum):
    """Whose doing it was."""

    PERSON = "person"
    DEVICE = "device"
    SERVER = "server"
    ENGINE = "engine"


@attrs.frozen
class Happening:
    """One thing that happened."""

    at: float
    """Trio time."""
    side: Side
    kind: str
    """`stt`, `tts start`, `audio`, `hang up`, … of the server; `speech` where the loudspeaker
    begins to sound, `idle`, `listening`, `speaking`, `sent listen start`, … of the device;
    `asked llm`, … of an engine."""
    text: str = ""
    """What was said, shown or asked for."""
    body: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    """The server's JSON message."""


class Timeline:
    """The record of one scenario; whoever takes part adds to it."""

    def __init__(self) -> None:
        self.began_at = trio.current_time()
        self.happenings: list[Happening] = []
        self._news = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self.happenings)

    def add(
        self, side: Side, kind: str, text: str = "", body: Mapping[str, Any] | None = None
    ) -> None:
        """Note that this happens now."""
        self.happenings.append(Happening(trio.current_time(), side, kind, text, body or {}))
        self._news.unpark_all()

    def engine(self, name: str, asked: str) -> None:
        """Note that an engine is asked for something now."""
        self.add(Side.ENGINE, f"asked {name}", asked)

    def since(self, position: int, kind: str) -> Iterator[Happening]:
        """What has happened of a kind, from a position in the record on."""
        return (event for event in self.happenings[position:] if event.kind == kind)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; it is looked at after each thing that happens."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._news.park()
