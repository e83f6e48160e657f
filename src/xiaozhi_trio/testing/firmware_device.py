"""A device that behaves as firmware 2.4.2 does: what it does on its own, what it ignores, loses
and hears.

States, queues and timeouts are those of `application.cc`, `device_state_machine.cc` and
`audio_service.cc`. What the network task receives is handled a little later by one main
task, one thing after another; that delay is where the first packets of a reply get lost
that come too soon after `tts start`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import attrs
import trio

from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.testing.device import Event, Link, SimulatedDevice
from xiaozhi_trio.testing.device_tools import DeviceTools, ToolScript
from xiaozhi_trio.testing.downlink import Downlink
from xiaozhi_trio.testing.loudspeaker import Loudspeaker, PlayedFrame
from xiaozhi_trio.testing.room import Room
from xiaozhi_trio.testing.timeline import Side
from xiaozhi_trio.testing.uplink import Uplink, UplinkProfile

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from xiaozhi_trio.testing.timeline import Timeline

WARM_UP_SECONDS: Final = 0.120
"""From `listen start` to the first sound the microphone takes."""
HELLO_SECONDS: Final = 10.0
CHANNEL_TIMEOUT_SECONDS: Final = 120.0
"""Without a message for so long, the channel counts as broken at its next use."""
WAKE_WORD_PACKETS: Final = 33
"""The 2 s before the wake word was recognised, sent ahead of any `listen`."""

_MAIN_QUEUE: Final = 1000
_SEAM_SECONDS: Final = 0.001


class CannotConnect(Exception):
    """The server cannot be reached or refuses the device."""


class Line(Link, Protocol):
    """A connection that the device can drop."""

    def hang_up(self, *, reset: bool = False) -> None:
        """End it without a word, by a FIN or by a RST. Does not wait."""


Dial: TypeAlias = "Callable[[], AbstractAsyncContextManager[Line]]"
"""Connects for the block. Raises `CannotConnect` where it cannot."""

Mode: TypeAlias = Literal["auto", "manual", "realtime"]


class State(enum.Enum):
    """What a device shows on its screen."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LISTENING = "listening"
    SPEAKING = "speaking"


_TRANSITIONS: Final = {
    State.IDLE: {State.CONNECTING, State.LISTENING, State.SPEAKING},
    State.CONNECTING: {State.IDLE, State.LISTENING},
    State.LISTENING: {State.SPEAKING, State.IDLE},
    State.SPEAKING: {State.LISTENING, State.IDLE},
}


@attrs.frozen(kw_only=True)
class DeviceProfile:
    """Which device it is and where it stands."""

    mode: Mode = "auto"
    """What the wake word and the button start: `auto` without echo cancellation, `realtime`
    with it."""
    frame_ms: int = 60
    binary_version: int = 1
    aec: Literal["device", "server"] = "device"
    """Who cancels the echo in realtime mode."""
    echo: float = 0.0
    """How loud the microphone hears the loudspeaker; 1 is as loud as it plays."""
    wake_word: str = "你好小智"
    mcp: bool = True
    tools: tuple[ToolScript, ...] = ()
    """What it has beside the tools of every device."""
    scheduling_ms: int = 15
    """Until the main task gets to what the network task left for it."""
    uplink: UplinkProfile = attrs.field(factory=UplinkProfile)


@attrs.frozen
class _Channel:
    """An open connection."""

    line: Line
    wire: SimulatedDevice
    uplink: Uplink
    scope: trio.CancelScope


class FirmwareDevice:
    """One device. `run` it beside the person who uses it."""

    def __init__(self, dial: Dial, profile: DeviceProfile, timeline: Timeline) -> None:
        self._dial = dial
        self._profile = profile
        self._timeline = timeline
        self._todo, self._main = trio.open_memory_channel[
            tuple[float, Callable[[], Awaitable[None]]]
        ](_MAIN_QUEUE)
        self._nursery: trio.Nursery | None = None
        self._channel: _Channel | None = None
        self._mode: Mode = profile.mode
        self._state_event_pending = False
        self._listen_at_once = False
        self._microphone: trio.CancelScope | None = None
        self._last_data_at = trio.current_time()
        self.state = State.IDLE
        self.microphone_is_open = False
        """It takes what sounds in the room."""
        self.room = Room()
        self.downlink = Downlink()
        self.tools = DeviceTools(profile.tools)
        self.loudspeaker = Loudspeaker(on_frame=self._played)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.loudspeaker.run)
            task_status.started()
            async for due, work in self._main:
                await trio.sleep_until(due)
                await work()

    @property
    def is_connected(self) -> bool:
        """The channel to the server is open."""
        return self._channel is not None

    # What a person does to it; each returns when the device has taken note of it.

    async def press_button(self) -> None:
        """The one button: begin, interrupt, or end."""
        await self._handled(self._toggle_chat)

    async def press_talk(self) -> None:
        """Push-to-talk, held down from now on."""
        await self._handled(self._start_talking)

    async def release_talk(self) -> None:
        """Push-to-talk, let go."""
        await self._handled(self._stop_talking)

    async def wake(self, sound: bytes = b"") -> None:
        """Call it by its wake word, whose sound goes to the server as well."""
        await self._handled(partial(self._wake, sound))

    async def type_text(self, text: str) -> None:
        """Type into it, as desktop clients let people do."""
        await self._handled(partial(self._type, text))

    async def connect(self) -> None:
        """Open the channel and say no more than hello."""
        await self._handled(self._say_hello)

    async def send_json(self, **body: Any) -> None:
        """Send any message, behind the state machine's back."""
        if self._channel is not None:
            self._sent(str(body.get("type", "")), str(body.get("state", "")))
            await self._channel.wire.send_json(**body)

    async def send_raw(self, payload: str | bytes) -> None:
        """Send anything, behind the state machine's back."""
        if self._channel is not None:
            self._sent("garbage")
            await self._channel.wire.send_raw(payload)

    async def lose_connection(self, *, reset: bool) -> None:
        """Drop off the network."""
        await trio.lowlevel.checkpoint()
        if self._channel is not None:
            self._channel.line.hang_up(reset=reset)
            self._channel.scope.cancel()

    # The main task.

    def _schedule(self, work: Callable[[], Awaitable[None]]) -> None:
        due = trio.current_time() + self._profile.scheduling_ms / 1000
        self._todo.send_nowait((due, work))

    async def _handled(self, work: Callable[[], Awaitable[object]]) -> None:
        done = trio.Event()

        async def do() -> None:
            await work()
            done.set()

        self._schedule(do)
        await done.wait()

    def _set_state(self, state: State) -> None:
        if state is self.state:
            return
        if state not in _TRANSITIONS[self.state]:
            self._note("refused state", state.value)
            return
        self.state = state
        self._note(state.value)
        # One bit, whatever it was set for: of two changes only the later one is seen.
        if not self._state_event_pending:
            self._state_event_pending = True
            self._schedule(self._on_state_changed)

    async def _on_state_changed(self) -> None:
        self._state_event_pending = False
        match self.state:
            case State.IDLE | State.CONNECTING:
                self._close_microphone()
            case State.SPEAKING:
                if self._mode != "realtime":
                    self._close_microphone()
                self.loudspeaker.reset()
            case State.LISTENING if self._microphone is None:
                if self._mode == "auto" and not self._listen_at_once:
                    self._in_background(self._listen_when_drained)
                else:
                    await self._begin_to_listen()
        self._listen_at_once = False

    async def _listen_when_drained(self) -> None:
        await self.loudspeaker.drained()
        self._schedule(self._begin_to_listen)

    async def _begin_to_listen(self) -> None:
        if self.state is not State.LISTENING or self._microphone is not None:
            return
        if self._channel is not None:
            await self._send("listen", state="start", mode=self._mode)
            self._open_microphone(self._channel)

    # What the main task is asked for.

    async def _toggle_chat(self) -> None:
        match self.state:
            case State.IDLE:
                if await self._open_channel():
                    self._listen(self._profile.mode)
            case State.SPEAKING:
                await self._send("abort")
            case State.LISTENING:
                self._close_channel()

    async def _start_talking(self) -> None:
        if self.state is State.SPEAKING:
            await self._send("abort")
            self.loudspeaker.flush()
            self._listen_at_once = True
        elif self.state is not State.IDLE or not await self._open_channel():
            return
        self._listen("manual")

    async def _stop_talking(self) -> None:
        if self.state is State.LISTENING:
            self._close_microphone()
            await self._send("listen", state="stop")
            self._set_state(State.IDLE)

    async def _wake(self, sound: bytes) -> None:
        match self.state:
            case State.IDLE:
                if not await self._open_channel():
                    return
                await self._send_wake_word(sound)
            case State.SPEAKING:
                await self._send("abort", reason="wake_word_detected")
                self.loudspeaker.flush()
                self._listen_at_once = True
            case State.LISTENING:
                await self._send("abort", reason="wake_word_detected")
                self._close_microphone()
                await self._begin_to_listen()
            case State.CONNECTING:
                return
        self._listen(self._profile.mode)

    async def _send_wake_word(self, sound: bytes) -> None:
        encoder = OpusEncoder(LISTENING_RATE, frame_ms=self._profile.frame_ms, complexity=0)
        size = encoder.frame_bytes
        kept = sound[-WAKE_WORD_PACKETS * size :]
        for start in range(0, len(kept), size):
            await self._send_packet(encoder.encode(kept[start : start + size].ljust(size, b"\0")))
        await self._send("listen", state="detect", text=self._profile.wake_word)

    async def _type(self, text: str) -> None:
        await self._say_hello()
        await self._send("listen", state="detect", text=text)

    async def _say_hello(self) -> None:
        await self._open_channel()
        if self.state is State.CONNECTING:
            self._set_state(State.IDLE)

    async def _on_tts_start(self) -> None:
        await trio.lowlevel.checkpoint()
        self._set_state(State.SPEAKING)

    async def _on_tts_stop(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.state is State.SPEAKING:
            self._set_state(State.IDLE if self._mode == "manual" else State.LISTENING)

    async def _on_mcp(self, request: dict[str, Any]) -> None:
        name = self.tools.called(request)
        script = self.tools.script(name)
        if name:
            self._note("tool call", name)
            await trio.sleep(script.delay_ms / 1000)
        answer = self.tools.answer(request)
        if answer is not None and script.answers:
            await self._send("mcp", payload=answer)

    def _listen(self, mode: Mode) -> None:
        self._mode = mode
        self._set_state(State.LISTENING)

    # The channel.

    async def _open_channel(self) -> bool:
        now = trio.current_time()
        stale = self._channel
        if stale is not None and now - self._last_data_at <= CHANNEL_TIMEOUT_SECONDS:
            return True
        self._set_state(State.CONNECTING)
        if not await self._connect():
            self._set_state(State.IDLE)
            return False
        if stale is not None:
            stale.line.hang_up()
            stale.scope.cancel()
        return True

    async def _connect(self) -> bool:
        if self._nursery is None:
            raise RuntimeError("run the device before it is used")
        try:
            channel = await self._nursery.start(self._converse)
        except CannotConnect as refusal:
            self._note("not connected", str(refusal))
            return False
        try:
            with trio.fail_after(HELLO_SECONDS):
                await channel.wire.hello(**self._features())
        except (trio.TooSlowError, trio.EndOfChannel, trio.BrokenResourceError):
            self._note("no hello")
            channel.scope.cancel()
            return False
        return True

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {"mcp": self._profile.mcp, "glyph_push": False}
        if self._profile.aec == "server":
            features["aec"] = True
        return {"features": features}

    async def _converse(self, task_status: trio.TaskStatus[_Channel]) -> None:
        async with self._dial() as line:
            wire = SimulatedDevice(
                self.downlink.over(line),
                frame_ms=self._profile.frame_ms,
                binary_version=self._profile.binary_version,
                on_event=self._received,
            )
            uplink = Uplink(
                self._send_packet, frame_ms=self._profile.frame_ms, profile=self._profile.uplink
            )
            async with trio.open_nursery() as nursery:
                channel = _Channel(line, wire, uplink, nursery.cancel_scope)
                self._channel = channel
                self._last_data_at = trio.current_time()
                nursery.start_soon(uplink.run)
                task_status.started(channel)
                await wire.listen_to_server()
                self._timeline.add(Side.SERVER, "hang up")
                nursery.cancel_scope.cancel()
        if self._channel is channel:
            self._channel = None
            self._close_microphone()
        self._schedule(self._on_channel_closed)

    async def _on_channel_closed(self) -> None:
        await trio.lowlevel.checkpoint()
        self._set_state(State.IDLE)

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._note("hung up")
            self._channel.line.hang_up()
            self._channel.scope.cancel()

    def _received(self, event: Event) -> None:
        self._last_data_at = trio.current_time()
        if event.packet is not None:
            self._timeline.add(Side.SERVER, "audio")
            if self.state is State.SPEAKING:
                self.loudspeaker.push(event.packet, event.timestamp)
            else:
                self.loudspeaker.losses.deaf += 1
            return
        text = event.body.get("text") or event.body.get("message") or ""
        text = str(event.body.get("emotion", "")) if event.kind == "llm" else str(text)
        self._timeline.add(Side.SERVER, event.kind, text, event.body)
        match event.kind:
            case "tts start":
                self.loudspeaker.reply_announced()
                self._schedule(self._on_tts_start)
            case "tts stop":
                self._schedule(self._on_tts_stop)
            case "mcp" if isinstance(event.body.get("payload"), dict):
                self._schedule(partial(self._on_mcp, event.body["payload"]))

    async def _send(self, kind: str, **body: Any) -> None:
        if self._channel is None:
            return
        self._sent(kind, str(body.get("state", "")), str(body.get("text", "")))
        try:
            await self._channel.wire.send_json(session_id="", type=kind, **body)
        except trio.BrokenResourceError:
            self._note("not sent", kind)

    async def _send_packet(self, packet: bytes, timestamp: int = 0) -> None:
        if self._channel is None:
            return
        try:
            await self._channel.wire.send_packet(packet, timestamp=timestamp)
        except trio.BrokenResourceError:
            # The reader will find the channel closed; firmware drops the packet.
            return

    # The microphone and the loudspeaker.

    def _open_microphone(self, channel: _Channel) -> None:
        self._microphone = trio.CancelScope()
        self._in_background(partial(self._record, channel.uplink, self._microphone))

    def _close_microphone(self) -> None:
        if self._microphone is not None:
            self._microphone.cancel()
            self._microphone = None
            self.microphone_is_open = False
            self._note("mic closed")

    async def _record(self, uplink: Uplink, scope: trio.CancelScope) -> None:
        frame_ms = self._profile.frame_ms
        with scope:
            await trio.sleep(WARM_UP_SECONDS)
            self.microphone_is_open = True
            self._note("mic open")
            at = trio.current_time()
            while True:
                await trio.sleep_until(at + frame_ms / 1000)
                timestamp = 0
                if self._profile.aec == "server":
                    timestamp = self.loudspeaker.next_timestamp()
                uplink.push(self.room.hear(at, frame_ms), timestamp)
                at += frame_ms / 1000

    def _played(self, frame: PlayedFrame) -> None:
        played = self.loudspeaker.played
        if len(played) < 2 or frame.at - played[-2].end > _SEAM_SECONDS:
            self._note("speech")
        if self._profile.echo:
            self.room.sound(frame.at, frame.pcm, gain=self._profile.echo)

    def _in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(work)

    def _note(self, kind: str, text: str = "") -> None:
        self._timeline.add(Side.DEVICE, kind, text)

    def _sent(self, kind: str, state: str = "", text: str = "") -> None:
        self._note(f"sent {kind} {state}".rstrip(), text)
