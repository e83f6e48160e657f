"""A simulated device: what firmware says and hears on its WebSocket, on Trio's clock.

It speaks through a `Link`, so that the same device talks to a session in memory on
a virtual clock or to a server over a socket.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs
import trio

from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi_trio.testing.engines import Tone

UPLINK_RATE: Final = 16_000


class Link(Protocol):
    """The device's end of a connection."""

    async def send(self, payload: str | bytes) -> None:
        """Send one message. Raises `trio.BrokenResourceError` where nobody listens."""

    async def receive(self) -> str | bytes:
        """The next message. Raises `trio.EndOfChannel` at the end."""


class MemoryLink:
    """A connection in memory; the server's end is `from_device` and `to_device`."""

    def __init__(self, *, room: int = 1000) -> None:
        """`room` is how many messages of the server are on their way before it has to wait."""
        self._up, self.from_device = trio.open_memory_channel[str | bytes](1000)
        self.to_device, self._down = trio.open_memory_channel[str | bytes](room)

    async def send(self, payload: str | bytes) -> None:
        """Hand a message to the server."""
        await self._up.send(payload)

    async def receive(self) -> str | bytes:
        """Take a message of the server."""
        return await self._down.receive()

    def hang_up(self, *, reset: bool = False) -> None:  # noqa: ARG002 - looks the same in memory
        """Vanish without a goodbye, as firmware does."""
        self._up.close()


@attrs.frozen
class Event:
    """Something the server sent."""

    at: float
    """Trio time."""
    body: Mapping[str, Any]
    """The JSON message; empty for audio."""
    packet: bytes | None = None
    """The Opus packet, freed from its framing."""
    timestamp: int = 0
    """Of the framing, where it carries one."""

    @property
    def kind(self) -> str:
        """`stt`, `tts start`, `llm`, …; `audio` for a packet."""
        if self.packet is not None:
            return "audio"
        kind: str = self.body["type"]
        state = self.body.get("state")
        return f"{kind} {state}" if state else kind


class SimulatedDevice:
    """One device. Run `listen_to_server` beside the test's own steps."""

    def __init__(
        self,
        link: Link,
        *,
        frame_ms: int = 60,
        binary_version: int = 1,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        """`on_event` is called with each thing the server sends, when it comes."""
        self._link = link
        self._on_event = on_event
        self.frame_ms = frame_ms
        self.binary_version = binary_version
        self._encoder = OpusEncoder(UPLINK_RATE, frame_ms=frame_ms, complexity=0)
        self.events: list[Event] = []
        self.hung_up_at: float | None = None
        """When the server's side ended."""
        self._news = trio.Condition()
        self._voice = Tone(hertz=300.0, level=9000)

    async def listen_to_server(self) -> None:
        """Record everything the server sends, until it hangs up."""
        try:
            while True:
                payload = await self._link.receive()
                event = self._event(payload)
                self._on_event(event)
                async with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        except trio.EndOfChannel:
            async with self._news:
                self.hung_up_at = trio.current_time()
                self._news.notify_all()

    def _event(self, payload: str | bytes) -> Event:
        now = trio.current_time()
        if isinstance(payload, str):
            return Event(now, json.loads(payload))
        if self.binary_version == 2:
            _, _, _, timestamp, size = struct.unpack_from(">HHIII", payload)
            return Event(now, {}, payload[16 : 16 + size], timestamp)
        if self.binary_version == 3:
            (size,) = struct.unpack_from(">H", payload, 2)
            return Event(now, {}, payload[4 : 4 + size])
        return Event(now, {}, payload)

    @property
    def kinds(self) -> list[str]:
        """What came, in order, with runs of audio packets as one `audio`."""
        kinds: list[str] = []
        for event in self.events:
            if event.kind != "audio" or not kinds or kinds[-1] != "audio":
                kinds.append(event.kind)
        return kinds

    def of_kind(self, kind: str) -> list[Event]:
        """All events of a kind so far."""
        return [event for event in self.events if event.kind == kind]

    async def wait_for(self, kind: str, *, count: int = 1) -> Event:
        """The `count`-th event of a kind, as soon as it has come.

        Raises `trio.EndOfChannel` where the server hangs up before.
        """
        async with self._news:
            while len(self.of_kind(kind)) < count:
                if self.hung_up_at is not None:
                    raise trio.EndOfChannel(f"hung up before {kind}; came: {self.kinds}")
                await self._news.wait()
        return self.of_kind(kind)[count - 1]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the events, looked at after each of them.

        Raises `trio.EndOfChannel` where the server hangs up before.
        """
        async with self._news:
            while not condition():
                if self.hung_up_at is not None:
                    raise trio.EndOfChannel(f"hung up before; came: {self.kinds}")
                await self._news.wait()

    async def wait_for_hang_up(self) -> float:
        """When the server's side ended, Trio time."""
        async with self._news:
            while self.hung_up_at is None:
                await self._news.wait()
        return self.hung_up_at

    async def send_json(self, **body: Any) -> None:
        """Send a JSON message as it is."""
        await self._link.send(json.dumps(body, ensure_ascii=False))

    async def send_raw(self, payload: str | bytes) -> None:
        """Send anything."""
        await self._link.send(payload)

    async def hello(self, **changes: Any) -> Event:
        """Say hello as firmware 2.4.2 does, with members changed (None removes one)."""
        body: dict[str, Any] = {
            "type": "hello",
            "version": self.binary_version,
            "features": {"mcp": False},
            "transport": "websocket",
            "audio_params": {
                "format": "opus",
                "sample_rate": UPLINK_RATE,
                "channels": 1,
                "frame_duration": self.frame_ms,
            },
        }
        body.update(changes)
        await self.send_json(**{key: value for key, value in body.items() if value is not None})
        return await self.wait_for("hello")

    async def listen(self, mode: str = "auto") -> None:
        """Open the microphone."""
        await self.send_json(session_id="", type="listen", state="start", mode=mode)

    async def stop_listening(self) -> None:
        """Close the microphone (push-to-talk)."""
        await self.send_json(session_id="", type="listen", state="stop")

    async def detect(self, text: str) -> None:
        """Report a wake word, or typed text."""
        await self.send_json(session_id="", type="listen", state="detect", text=text)

    async def abort(self, reason: str | None = None) -> None:
        """Ask for silence."""
        more = {} if reason is None else {"reason": reason}
        await self.send_json(session_id="", type="abort", **more)

    async def speak(self, seconds: float, *, burst: bool = False) -> None:
        """Stream voice, in real time or all at once."""
        await self._stream(seconds, burst, self._voice.level)

    async def silence(self, seconds: float, *, burst: bool = False) -> None:
        """Stream silence, in real time or all at once."""
        await self._stream(seconds, burst, 0)

    async def _stream(self, seconds: float, burst: bool, level: int) -> None:
        tone = attrs.evolve(self._voice, level=level, ms_per_character=self.frame_ms)
        pcm = tone.pcm(" ", UPLINK_RATE)
        due = trio.current_time()
        for _ in range(round(seconds * 1000 / self.frame_ms)):
            await self.send_packet(self._encoder.encode(pcm))
            due += self.frame_ms / 1000
            if not burst:
                await trio.sleep_until(due)

    async def send_packet(self, packet: bytes, *, timestamp: int = 0) -> None:
        """Send one Opus packet in the framing of this device.

        `timestamp`, where the framing carries one, is that of the downlink packet which
        was playing while this one was recorded.
        """
        if self.binary_version == 2:
            packet = struct.pack(">HHIII", 2, 0, 0, timestamp, len(packet)) + packet
        elif self.binary_version == 3:
            packet = struct.pack(">BBH", 0, 0, len(packet)) + packet
        await self._link.send(packet)

    def spoken_ms(self, sample_rate: int = 24_000) -> float:
        """How much speech came, decoded."""
        decoder = OpusDecoder(sample_rate)
        packets = (event.packet for event in self.events if event.packet is not None)
        size = sum(len(decoder.decode(packet)) for packet in packets)
        return size / 2 * 1000 / sample_rate
