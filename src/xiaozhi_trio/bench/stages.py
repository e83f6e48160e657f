"""What the stages of one frame cost, in and out, each alone and warm.

Run as `python -m xiaozhi_trio.bench.stages`. Microseconds of CPU of the whole process
for one 60 ms frame, the best of several runs, since everything else on the machine
only ever adds. In a server the caches are cold, so a frame costs more than their sum:
`xiaozhi-trio bench frames` tells how much.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Final

import trio

from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi_trio.bench.client_frames import frame
from xiaozhi_trio.bench.voice import UPLINK_FRAME_MS, question, voice
from xiaozhi_trio.config.settings import AudioSettings, LimitSettings, ListeningSettings, Settings
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.engines.registry import EngineKind, build_engine
from xiaozhi_trio.gateway.websocket import accept_websocket
from xiaozhi_trio.session.listening import BYTES_PER_MS, Listening
from xiaozhi_trio.session.outbox import Outbox
from xiaozhi_trio.testing import LoudnessDetector
from xiaozhi_trio.wire.messages import ListenMode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from xiaozhi_trio.engines.protocols import VoiceActivityDetector

    Work = Callable[[], Awaitable[int]]

_RUNS: Final = 5
_FRAMES: Final = 200
_UPLINK_PCM: Final = bytes(UPLINK_FRAME_MS * BYTES_PER_MS)
_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="


async def _best(work: Work) -> float:
    """Microseconds for each of the frames that `work` says it has handled."""
    found = []
    for _ in range(_RUNS):
        began = process_time()
        frames = await work()
        found.append((process_time() - began) / frames)
    return min(found) * 1e6


async def _decode(decoder: OpusDecoder, packets: Iterable[bytes]) -> int:
    await trio.lowlevel.checkpoint()
    return sum(1 for packet in packets if decoder.decode(packet))


async def _encode(encoder: OpusEncoder, pcm: bytes) -> int:
    await trio.lowlevel.checkpoint()
    size = encoder.frame_bytes
    starts = range(0, len(pcm) - size + 1, size)
    return sum(1 for start in starts if encoder.encode(pcm[start : start + size]))


async def _detect(vad: VoiceActivityDetector, streams: int) -> int:
    """Frames of so many microphones that come at once."""

    async def listen() -> None:
        stream = vad.open_stream()
        for _ in range(_FRAMES // streams):
            await stream.accept(_UPLINK_PCM)

    async with trio.open_nursery() as nursery:
        for _ in range(streams):
            nursery.start_soon(listen)
    return _FRAMES // streams * streams


async def _endpoint() -> int:
    ear = Listening(ListeningSettings())
    ear.attach(LoudnessDetector().open_stream())
    ear.open(ListenMode.AUTO)
    for _ in range(_FRAMES):
        await ear.accept(_UPLINK_PCM)
    return _FRAMES


async def _outbox(packet: bytes) -> int:
    outbox = Outbox("session", on_overflow=lambda: None)
    for _ in range(_FRAMES):
        await outbox.send_audio(packet, turn=1)
        await outbox.next_payload()
    return _FRAMES


async def _websocket(packet: bytes, *, sending: bool) -> int:
    """Through sockets, one frame at a time, as devices send and get them."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    encoded = frame(packet)
    with theirs:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with (
            stream,
            accept_websocket(stream, key=_KEY, received=b"", limits=LimitSettings()) as websocket,
        ):
            for _ in range(_FRAMES):
                if sending:
                    await websocket.send(packet)
                    theirs.recv(1024)
                else:
                    theirs.send(encoded)
                    await websocket.receive()
    return _FRAMES


async def main() -> None:
    """Print one line a stage."""
    settings = Settings()
    models = ModelStore(default_model_directory(), sources=settings.models.sources)
    vad: VoiceActivityDetector = build_engine(EngineKind.VAD, settings, models)
    await vad.load()
    asked = question()
    spoken = asked.packets[: asked.voiced_packets]
    audio = AudioSettings()
    speech = voice(6000, audio.sample_rate)
    stages: dict[str, Work] = {
        "in: WebSocket": partial(_websocket, spoken[3], sending=False),
        "in: Opus decoding": partial(_decode, OpusDecoder(LISTENING_RATE), spoken),
        "in: endpointing": _endpoint,
        **{
            f"in: voice detection, {streams} at once": partial(_detect, vad, streams)
            for streams in (1, 4, 16, 64)
        },
        **{
            f"out: Opus encoding, complexity {complexity}": partial(
                _encode,
                OpusEncoder(
                    audio.sample_rate,
                    frame_ms=audio.frame_ms,
                    bitrate=audio.bitrate,
                    complexity=complexity,
                ),
                speech,
            )
            for complexity in range(11)
        },
        "out: outbox": partial(_outbox, bytes(170)),
        "out: WebSocket": partial(_websocket, bytes(170), sending=True),
    }
    for name, work in stages.items():
        sys.stdout.write(f"{name:<40} {await _best(work):6.0f} us\n")


if __name__ == "__main__":
    trio.run(main)
