"""Who is talking now: one session a device, the newest wins."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from xiaozhi_trio.wire.closing import NORMAL, Closing

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLACED = Closing(NORMAL, "replaced")
"""A device that reconnects leaves its old socket half open for a moment; the new one counts."""


class Endable(Protocol):
    """What the roster needs of a session."""

    def end(self, closing: Closing) -> None:
        """Begin to close; returns at once, may be called more than once."""


class Roster:
    """The sessions in progress by device id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Endable] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    @contextmanager
    def enter(self, device_id: str, session: Endable) -> Iterator[None]:
        """Hold the device's place for the length of the block; an older holder is ended.

        The late exit of an older holder does not touch the new one.
        """
        older = self._sessions.get(device_id)
        self._sessions[device_id] = session
        if older is not None:
            older.end(REPLACED)
        try:
            yield
        finally:
            if self._sessions.get(device_id) is session:
                del self._sessions[device_id]

    def end_all(self, closing: Closing) -> None:
        """End every session, as a server does that stops."""
        for session in list(self._sessions.values()):
            session.end(closing)
