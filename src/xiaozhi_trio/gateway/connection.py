"""One admitted device: its session, the reader's end and the one writer."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs
import trio
from loguru import logger

from xiaozhi_trio.config.settings import LimitSettings
from xiaozhi_trio.gateway.taped_websocket import TapedWebSocket
from xiaozhi_trio.gateway.websocket import accept_websocket
from xiaozhi_trio.session.recording import Recorder
from xiaozhi_trio.session.roster import Roster
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.telemetry.report import Reporter, shown
from xiaozhi_trio.wire.closing import GOING_AWAY, INTERNAL_ERROR, NORMAL, Closing
from xiaozhi_trio.wire.handshake import Handshake
from xiaozhi_trio.wire.opening import PeerLeft

if TYPE_CHECKING:
    from xiaozhi_trio.gateway.doorway import Admission

SERVER_SHUTDOWN: Final = Closing(GOING_AWAY, "server_shutdown")
FAILED: Final = Closing(INTERNAL_ERROR, "internal_error")
CUT_SHORT: Final = Closing(GOING_AWAY, "cut_short")
"""The server did not wait for the session any longer."""
PEER_STALLED: Final = Closing(NORMAL, "peer_stalled")
"""The peer took nothing for `limits.send_seconds`; it is not told, since it does not read."""


class WebSocketLike(Protocol):
    """What a connection needs of a `gateway.websocket.WebSocket`."""

    @property
    def close_code(self) -> int | None:
        """How it ended."""

    @property
    def exceeded(self) -> Closing | None:
        """The limit for which it ends."""

    async def receive(self) -> str | bytes:
        """The next message; raises `trio.EndOfChannel` once the peer is gone."""

    async def send(self, payload: str | bytes) -> None:
        """Send one message; raises `trio.BrokenResourceError` where the peer is gone."""

    async def abort(self) -> None:
        """Give the peer up."""

    async def close(self, closing: Closing) -> None:
        """Send the close frame that is due."""


class Outbox(Protocol):
    """What the writer needs of a session's outbox."""

    async def next_payload(self) -> str | bytes:
        """The next message; raises `trio.EndOfChannel` once closed and drained."""

    def close(self) -> None:
        """Take nothing more."""


class SessionLike(Protocol):
    """What a connection needs of a session."""

    @property
    def outbox(self) -> Outbox:
        """What the session has to say."""

    async def run(self, receive: Callable[[], Awaitable[str | bytes]]) -> Closing:
        """Converse until the end. `receive` raises `trio.EndOfChannel` once the peer is gone."""

    def end(self, closing: Closing) -> None:
        """Begin to close; returns at once."""


SessionFactory: TypeAlias = Callable[[Handshake, str], SessionLike]
"""Makes the session of a device from its handshake and a session id of ours."""


class Writer:
    """Sends what a session puts into its outbox: the only task that does."""

    def __init__(self, websocket: WebSocketLike, outbox: Outbox, *, send_seconds: float) -> None:
        self._websocket = websocket
        self._outbox = outbox
        self._send_seconds = send_seconds
        self.stalled = False
        """Whether one send took longer than it may."""
        self.finished = trio.Event()

    async def run(self) -> None:
        """Send until the outbox is closed and drained.

        A peer that is gone changes nothing but that the messages are thrown away: a
        session that waits for room in its outbox must get it, to see that the peer
        is gone.
        """
        reachable = True
        while True:
            try:
                payload = await self._outbox.next_payload()
            except trio.EndOfChannel:
                self.finished.set()
                return
            if reachable:
                reachable = await self._deliver(payload)

    async def _deliver(self, payload: str | bytes) -> bool:
        with trio.move_on_after(self._send_seconds) as patience:
            try:
                await self._websocket.send(payload)
            except trio.BrokenResourceError:
                return False
        if patience.cancelled_caught:
            self.stalled = True
            await self._websocket.abort()
        return not self.stalled


def _is_cancelled() -> bool:
    # An await would raise Cancelled in the place of the error that is on its way.
    return trio.current_effective_deadline() == -math.inf


async def converse(
    websocket: WebSocketLike, session: SessionLike, *, send_seconds: float
) -> Closing:
    """Run the session over the WebSocket to its end, and send what it has left to say.

    Returns how it ended. What the session raises comes out, after its last words, in
    an exception group.
    """
    writer = Writer(websocket, session.outbox, send_seconds=send_seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        try:
            closing = await session.run(websocket.receive)
        finally:
            session.outbox.close()
            if not _is_cancelled():
                with trio.move_on_after(send_seconds):
                    await writer.finished.wait()
        nursery.cancel_scope.cancel()
    if writer.stalled:
        return PEER_STALLED
    # To the session, a peer that was cut off for sending too much is one that is gone.
    return closing if websocket.exceeded is None else websocket.exceeded


@attrs.frozen(kw_only=True)
class Reception:
    """Gives every admitted device its session."""

    sessions: SessionFactory
    roster: Roster
    reporter: Reporter
    counters: Counters
    limits: LimitSettings
    stopping: trio.Event
    """Set once the server stops; a session that begins then is ended at once."""
    recorder: Recorder | None = None

    async def receive(self, admission: Admission) -> None:
        """Answer the upgrade, hold the session, send the close frame.

        Raises what the session raises, after the peer got a close frame with 1011.
        """
        handshake, session_id = admission.handshake, str(uuid.uuid4())
        with logger.contextualize(
            peer=shown(admission.peer), device=handshake.device_id, session=session_id
        ):
            try:
                async with accept_websocket(
                    admission.stream,
                    key=admission.key,
                    received=admission.received,
                    limits=self.limits,
                ) as websocket:
                    if self.recorder is None:
                        await self._hold(websocket, handshake, session_id)
                    else:
                        async with self.recorder.tape(handshake, session_id) as tape:
                            taped = TapedWebSocket(websocket, tape)
                            await self._hold(taped, handshake, session_id)
            except* PeerLeft:
                self.reporter.left(
                    "the peer was lost while its upgrade was answered",
                    admission.peer,
                    has_spoken=True,
                )

    async def _hold(self, websocket: WebSocketLike, handshake: Handshake, session_id: str) -> None:
        logger.bind(
            client=handshake.client_id,
            protocol_version=handshake.protocol_version,
            browser=handshake.from_browser,
            notes=handshake.notes,
        ).info("device connected")
        began = trio.current_time()
        closing = FAILED
        try:
            session = self.sessions(handshake, session_id)
            with self.roster.enter(handshake.device_id, session):
                if self.stopping.is_set():
                    session.end(SERVER_SHUTDOWN)
                closing = await converse(websocket, session, send_seconds=self.limits.send_seconds)
        except* trio.Cancelled:
            closing = CUT_SHORT
            raise
        finally:
            self.counters.count("sessions_ended", reason=closing.reason)
            explained = {"detail": closing.detail, "fix": closing.fix}
            logger.bind(
                reason=closing.reason,
                code=closing.code,
                peer_code=websocket.close_code,
                seconds=round(trio.current_time() - began, 1),
                **{name: text for name, text in explained.items() if text},
            ).log("WARNING" if closing.fix else "INFO", "device disconnected")
            if not _is_cancelled():
                await websocket.close(closing)
