"""One device's session, from hello to the end of its connection.

The reader hands in what the device sends, the writer takes what the outbox holds.
What the messages mean for the dialogue is `Conversation`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio
from loguru import logger

from xiaozhi_trio.audio.echo import EchoCanceller, can_cancel_echo
from xiaozhi_trio.config.settings import Settings, TelemetrySettings
from xiaozhi_trio.engines.slots import EngineSet
from xiaozhi_trio.session.agents import Agents
from xiaozhi_trio.session.conversation import Conversation
from xiaozhi_trio.session.encoding import EncodingRunner
from xiaozhi_trio.session.history import History
from xiaozhi_trio.session.idle_clock import IdleClock
from xiaozhi_trio.session.microphone import Echo, Microphone
from xiaozhi_trio.session.negotiation import HelloRefused, malformed_hello, negotiate
from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.session.phrases import UNSUPPORTED
from xiaozhi_trio.session.stock_speech import StockSpeech
from xiaozhi_trio.session.turn import TurnTools
from xiaozhi_trio.telemetry.trace_keeper import TraceKeeper
from xiaozhi_trio.tools.device_functions import DeviceFunction, device_functions
from xiaozhi_trio.tools.device_mcp import DeviceMcp
from xiaozhi_trio.tools.end_conversation import EndConversation
from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.closing import NORMAL, PEER_GONE, POLICY_VIOLATION, Closing
from xiaozhi_trio.wire.handshake import Handshake
from xiaozhi_trio.wire.messages import (
    HELLO_MALFORMED,
    Abort,
    Alert,
    ClientMessage,
    Hello,
    ListenDetect,
    ListenStart,
    ListenStop,
    McpFromDevice,
    McpToDevice,
    Other,
    ServerHello,
    decode,
)
from xiaozhi_trio.wire.violation import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping


IDLE: Final = Closing(NORMAL, "idle")
PARTED: Final = Closing(NORMAL, "parted")
PEER_STALLED: Final = Closing(POLICY_VIOLATION, "peer_stalled")

MAX_COMPLAINTS: Final = 16
"""Messages ignored on one connection that are logged: a peer must not fill the disk."""

Receive: TypeAlias = "Callable[[], Awaitable[str | bytes]]"
"""The next message of the peer; raises `trio.EndOfChannel` once it is gone.

May be cancelled at any time without losing a message.
"""


@attrs.frozen(kw_only=True)
class SessionServices:
    """What the server lends to every session."""

    settings: Settings
    engines: EngineSet
    run_encoding: EncodingRunner
    vision: Callable[[Handshake], tuple[str, str]]
    """Where a device posts photos, and the token it shows there."""
    agents: Agents = attrs.field(
        default=attrs.Factory(lambda self: Agents.of(self.settings), takes_self=True)
    )
    stock: StockSpeech = attrs.field(
        default=attrs.Factory(
            lambda self: StockSpeech(self.engines.tts, self.run_encoding, self.settings),
            takes_self=True,
        )
    )
    """Our own phrases, ready to be spoken."""
    traces: TraceKeeper = attrs.field(factory=lambda: TraceKeeper(TelemetrySettings()))
    """Where turns leave their traces."""


class Session:
    """The session on one connection. Run it once."""

    def __init__(self, handshake: Handshake, session_id: str, services: SessionServices) -> None:
        """`session_id` is echoed by clients without JSON escaping: letters and digits only."""
        self.session_id = session_id
        self._handshake = handshake
        self._services = services
        self._agent = services.agents.serving(handshake.device_id)
        self._scope = trio.CancelScope()
        self._closing: Closing | None = None
        self._conversation: Conversation | None = None
        self._mcp: DeviceMcp | None = None
        self._complaints = 0
        self.outbox = Outbox(session_id, on_overflow=lambda: self.end(PEER_STALLED))

    def end(self, closing: Closing) -> None:
        """End the session for this reason, unless it is ending already. Does not wait."""
        if self._closing is None:
            self._closing = closing
            self._scope.cancel()

    async def run(self, receive: Receive) -> Closing:
        """Converse until the peer is gone, `end` is called or nobody has spoken for long.

        Nothing that a peer sends raises here. When it returns, `tts stop` has been
        posted for every `tts start`.
        """
        hello_seconds = self._services.settings.limits.hello_seconds
        self._scope.deadline = trio.current_time() + hello_seconds
        agent = {"agent": self._agent.name} if self._agent.name else {}
        with logger.contextualize(**agent), self._scope:
            async with trio.open_nursery() as nursery:
                try:
                    while True:
                        await self._take_next(receive, nursery)
                except trio.EndOfChannel:
                    self.end(PEER_GONE)
        return self._closing or _hello_timeout(hello_seconds)

    async def _watch(self, idle_clock: IdleClock) -> None:
        """End the session once nobody has spoken for long, with a farewell if so configured."""
        while True:
            await idle_clock.expired()
            if self._conversation is None or not self._conversation.part():
                self.end(IDLE)
                return

    async def _take_next(self, receive: Receive, nursery: trio.Nursery) -> None:
        gap = float("inf") if self._conversation is None else self._conversation.gap_deadline
        with trio.CancelScope(deadline=gap) as waiting:
            payload = await receive()
        if waiting.cancelled_caught:
            if self._conversation is not None:
                self._conversation.packets_missing()
            return
        try:
            await self._take(payload, nursery)
        except ProtocolViolation as violation:
            if violation.reason == HELLO_MALFORMED and self._conversation is None:
                self._refuse(malformed_hello(violation))
            else:
                self._complain(violation)

    def _complain(self, violation: ProtocolViolation) -> None:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            logger.bind(
                reason=violation.reason,
                problem=str(violation)[:300],
                last_shown=self._complaints == MAX_COMPLAINTS,
            ).warning("message ignored")

    async def _take(self, payload: str | bytes, nursery: trio.Nursery) -> None:
        if isinstance(payload, str):
            self._take_message(decode(payload), nursery)
            return
        if self._conversation is None:
            raise ProtocolViolation("before_hello", "audio came before the hello")
        frame = binary.unpack(payload, self.outbox.binary_version)
        if isinstance(frame, binary.JsonFrame):
            self._take_message(decode(frame.text), nursery)
        else:
            await self._conversation.audio(frame.packet, frame.timestamp)

    def _take_message(self, message: ClientMessage, nursery: trio.Nursery) -> None:
        if isinstance(message, Hello):
            self._greet(message, nursery)
            return
        conversation = self._conversation
        if conversation is None:
            raise ProtocolViolation(
                "before_hello", f"{type(message).__name__} came before the hello"
            )
        match message:
            case ListenStart(mode):
                conversation.listen_start(mode)
            case ListenStop():
                conversation.listen_stop()
            case ListenDetect(text):
                conversation.detected(text.strip())
            case Abort(reason):
                conversation.abort(reason)
            case McpFromDevice(payload):
                if self._mcp is not None:
                    self._mcp.receive(payload)
            case Other(kind):
                raise ProtocolViolation("type_unknown", f"message of type {kind!r}")

    def _greet(self, hello: Hello, nursery: trio.Nursery) -> None:
        if self._conversation is not None:
            raise ProtocolViolation("second_hello", "a second hello on one connection")
        settings = self._agent.settings
        try:
            agreed = negotiate(hello, self._handshake, settings.audio)
        except HelloRefused as refusal:
            self._refuse(refusal)
            return
        self.outbox.binary_version = agreed.binary_version
        echo = self._echo() if hello.features.aec and agreed.carries_timestamps else None
        self.outbox.post(ServerHello(agreed.speech))
        idle_clock = IdleClock(settings.listening.idle_seconds)
        self._scope.deadline = math.inf
        nursery.start_soon(self._watch, idle_clock)
        self._conversation = Conversation(
            TurnTools(
                settings=settings,
                engines=self._services.engines,
                run_encoding=self._services.run_encoding,
                outbox=self.outbox,
                history=History(settings.conversation),
                speech=agreed.speech,
                shows_emotion=hello.features.emoji,
                stock=self._services.stock,
                device_tools=self._device_tools,
                traces=self._services.traces,
                device=self._handshake.device_id,
                session=self.session_id,
            ),
            Microphone(
                settings.listening,
                self._services.engines.vad,
                packet_ms=hello.audio_params.frame_duration,
                echo=echo,
            ),
            self._agent.end_of_turn,
            idle_clock,
            nursery,
            cancels_echo=not hello.features.aec,
            on_parting=lambda: self.end(PARTED),
        )
        logger.bind(
            framing=agreed.binary_version,
            uplink_ms=hello.audio_params.frame_duration,
            downlink_hz=agreed.speech.sample_rate,
            downlink_ms=agreed.speech.frame_duration,
            mcp=hello.features.mcp,
            server_aec=echo is not None,
        ).info("hello")
        if hello.features.mcp:
            self._mcp = self._meet_mcp()
            nursery.start_soon(self._mcp.run)

    def _echo(self) -> Echo | None:
        """What takes our speech out of the microphone, where the package for it is there."""
        if not can_cancel_echo():
            return None
        canceller = EchoCanceller()
        self.outbox.on_audio_sent = canceller.sent
        return Echo(canceller, self._services.run_encoding)

    def _refuse(self, refusal: HelloRefused) -> None:
        logger.bind(reason=refusal.reason, problem=str(refusal)).warning("hello refused")
        self.outbox.post(Alert(UNSUPPORTED.both, str(refusal)))
        self.end(Closing(POLICY_VIOLATION, refusal.reason))

    def _device_tools(self) -> list[DeviceFunction]:
        settings = self._agent.settings.tools
        if self._mcp is None or not settings.device:
            return []
        return device_functions(
            self._mcp,
            seconds=settings.device_seconds,
            at_most=settings.device_tools,
            taken=(EndConversation.name,),
        )

    def _meet_mcp(self) -> DeviceMcp:
        url, token = self._services.vision(self._handshake)

        def send(payload: Mapping[str, object]) -> None:
            self.outbox.post(McpToDevice(dict(payload)))

        return DeviceMcp(send, vision_url=url, vision_token=token)


def _hello_timeout(seconds: float) -> Closing:
    return Closing(
        POLICY_VIOLATION,
        "hello_timeout",
        f"no hello within {seconds:g} s (limits.hello_seconds)",
        "let the client say hello as soon as it is connected",
    )
