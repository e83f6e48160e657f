"""Sessions recorded on disk while they go on, without ever waiting for the disk.

What passes is put on a `Tape`, which has a bound. A task beside the session carries
it to the files in a worker thread, one thread for all sessions. Where the disk is
too slow, messages are left out of the recording and counted, never delayed.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from loguru import logger

from xiaozhi_trio import __version__
from xiaozhi_trio.config.disclosure import disclosed
from xiaozhi_trio.session.recorded_session import Entry, Passed, RecordedSession
from xiaozhi_trio.store.recording_format import Ended, Heading, LeftOut, Side
from xiaozhi_trio.store.recordings import RecordingFull, Recordings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.telemetry.counters import Counters
    from xiaozhi_trio.wire.closing import Closing
    from xiaozhi_trio.wire.handshake import Handshake

MAX_WAITING_BYTES: Final = 1_048_576
MAX_WAITING: Final = 1024
"""Messages, of one session; eight seconds of the busiest."""

_GATHER_SECONDS: Final = 0.25
"""Between two writes of a session, and what a killed process loses."""
_LAST_WRITE_SECONDS: Final = 5.0
"""Longest wait for the thread from the end of a session on."""
_TIDY_SECONDS: Final = 3600.0
_SECTIONS: Final = ("audio", "listening", "playout", "conversation", "vad", "asr", "llm", "tts")
"""Of the settings, those that shape a conversation."""
_CUT_SHORT: Final = "cut_short"
_TOO_SLOW: Final = "the disk is too slow for the end of it"

T = TypeVar("T")


class Tape:
    """What has passed on one connection and is not written yet."""

    def __init__(self) -> None:
        self._began = trio.current_time()
        self._waiting: list[Entry] = []
        self._bytes = 0
        self._left_out: dict[Side, int] = {"device": 0, "server": 0}
        self._changed = trio.lowlevel.ParkingLot()
        self._stopped = False
        self._ended: Ended | None = None
        self.gathering = trio.CancelScope()
        """Around the work that is done while more may come; cancelled by `finish`."""
        self.patience = trio.CancelScope(shield=True)
        """Around all work for the tape: nothing but its own end, and a while, ends that."""

    def take(self, side: Side, payload: str | bytes) -> None:
        """Note one WebSocket message of that side. Never waits, never raises."""
        if self._stopped:
            return
        if len(self._waiting) >= MAX_WAITING or self._bytes + len(payload) > MAX_WAITING_BYTES:
            self._left_out[side] += 1
            return
        self._admit_what_is_left_out()
        self._waiting.append(Passed(self._now(), side, payload))
        self._bytes += len(payload)
        self._changed.unpark_all()

    def ended(self, closing: Closing) -> None:
        """Note how the connection ends."""
        self._ended = Ended(at=self._now(), reason=closing.reason, code=closing.code)

    def finish(self) -> None:
        """Nothing more will come. Does not wait."""
        if self.gathering.cancel_called:
            return
        if not self._stopped:
            self._admit_what_is_left_out()
            cut_short = Ended(at=self._now(), reason=_CUT_SHORT, code=1006)
            self._waiting.append(self._ended or cut_short)
        self.gathering.cancel()
        self.patience.deadline = trio.current_time() + _LAST_WRITE_SECONDS

    def stop(self) -> None:
        """Drop what waits and all that still comes: it cannot be written."""
        self._stopped = True
        self.written(len(self._waiting))

    async def news(self) -> None:
        """Wait until something waits to be written."""
        while not self._waiting:
            await self._changed.park()

    def waiting(self) -> Sequence[Entry]:
        """What is to be written; it stays until `written` is told."""
        return tuple(self._waiting)

    def written(self, count: int) -> None:
        """Forget the first of what waits."""
        self._bytes -= sum(
            len(entry.payload) for entry in self._waiting[:count] if isinstance(entry, Passed)
        )
        del self._waiting[:count]

    def _now(self) -> float:
        return round(trio.current_time() - self._began, 4)

    def _admit_what_is_left_out(self) -> None:
        if any(self._left_out.values()):
            self._waiting.append(LeftOut(at=self._now(), **self._left_out))
            self._left_out = {"device": 0, "server": 0}


class Recorder:
    """Records the sessions of a server."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._recordings = Recordings(settings.recording)
        self._settings = settings
        self._counters = counters
        self._limiter = trio.CapacityLimiter(1)
        self._left_open: deque[RecordedSession] = deque()
        """Those that nobody waits for any more; the thread closes them when it gets to it."""
        self._left_one_open = trio.lowlevel.ParkingLot()

    async def prepare(self) -> None:
        """Make and tidy the folder. Raises `RecordingUnusable`."""
        await self._in_thread(self._recordings.prepare)
        logger.bind(folder=str(self._recordings.folder)).warning("every session is recorded")

    async def keep_tidy(self) -> None:
        """Delete recordings when they are old enough, for ever."""
        while True:
            if not self._left_open:
                with trio.move_on_after(_TIDY_SECONDS):
                    await self._left_one_open.park()
            try:
                await self._in_thread(self._recordings.tidy)
            except OSError as error:
                logger.bind(reason=str(error)).warning("old recordings stay")

    @asynccontextmanager
    async def tape(self, handshake: Handshake, session_id: str) -> AsyncIterator[Tape]:
        """Record what is put on the tape within the block; at its end, wait for the files.

        What fails here is logged and ends the recording, not the session.
        """
        tape = Tape()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._record, tape, self._heading(handshake, session_id))
            try:
                yield tape
            finally:
                tape.finish()

    def _heading(self, handshake: Handshake, session_id: str) -> Heading:
        now = time.time()
        settings = self._settings.for_device(handshake.device_id)
        return Heading(
            began=datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            unix=round(now, 3),
            server=f"xiaozhi-trio {__version__}",
            session=session_id,
            device=handshake.device_id,
            client=handshake.client_id,
            protocol_version=handshake.protocol_version,
            host=handshake.host,
            from_browser=handshake.from_browser,
            notes=handshake.notes,
            settings={name: disclosed(getattr(settings, name)) for name in _SECTIONS},
        )

    async def _record(self, tape: Tape, heading: Heading) -> None:
        try:
            await self._write(tape, heading)
        except (OSError, RecordingFull) as error:
            tape.stop()
            self._counters.count("recordings_stopped")
            logger.bind(reason=str(error)).warning("recording stopped")

    async def _write(self, tape: Tape, heading: Heading) -> None:
        recorded: RecordedSession | None = None
        with tape.patience:
            recorded = await self._in_thread(partial(self._begin, heading))
            try:
                with tape.gathering:
                    while True:
                        await tape.news()
                        await trio.sleep(_GATHER_SECONDS)
                        await self._carry(tape, recorded.write)
            finally:
                await self._carry(tape, recorded.end)
        if tape.patience.cancelled_caught:
            tape.stop()
            self._counters.count("recordings_stopped")
            logger.bind(reason=_TOO_SLOW).warning("recording stopped")
            if recorded is not None:
                self._left_open.append(recorded)
                self._left_one_open.unpark_all()

    async def _carry(self, tape: Tape, write: Callable[[Sequence[Entry]], None]) -> None:
        entries = tape.waiting()
        try:
            # A cancelled call has not begun: nothing is written twice, nothing lost.
            await self._in_thread(partial(write, entries))
        except (OSError, RecordingFull):
            tape.stop()
            raise
        tape.written(len(entries))

    def _begin(self, heading: Heading) -> RecordedSession:
        folder = self._recordings.begin(
            unix=heading.unix, device=heading.device, session=heading.session
        )
        try:
            return RecordedSession(folder, heading)
        except (OSError, RecordingFull):
            folder.close()
            raise

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(self._work, work, limiter=self._limiter)

    def _work(self, work: Callable[[], T]) -> T:
        while self._left_open:
            try:
                self._left_open.popleft().close()
            except OSError as error:
                logger.bind(reason=str(error)).warning("recording not closed")
        return work()
