"""The pairing of `tts start` and `tts stop`: a device between them does not listen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.wire.messages import TtsStart, TtsStop

if TYPE_CHECKING:
    from xiaozhi_trio.session.outbox import Outbox


class Speaking:
    """One turn's claim on the device's loudspeaker."""

    def __init__(self, outbox: Outbox, turn: int) -> None:
        self._outbox = outbox
        self._turn = turn
        self._opened = False
        self._closed = False

    @property
    def was_opened(self) -> bool:
        """`tts start` was said, whatever came after it."""
        return self._opened

    @property
    def is_open(self) -> bool:
        """`tts start` was said and `tts stop` not yet."""
        return self._opened and not self._closed

    def open(self) -> None:
        """Say `tts start`, once, unless the claim is already over."""
        if not self._opened and not self._closed:
            self._opened = True
            self._outbox.post(TtsStart(), turn=self._turn)

    def close(self) -> None:
        """Say `tts stop` if `tts start` was said, and never again. Does not wait."""
        if self.is_open:
            self._outbox.post(TtsStop())
        self._closed = True
