"""One exchange with the server as a simulated device lives through it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
import trio

from xiaozhi_trio.bench.client_frames import frame
from xiaozhi_trio.bench.light_device import LightDevice, text_frame
from xiaozhi_trio.bench.voice import UPLINK_FRAME_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.bench.light_device import Message
    from xiaozhi_trio.bench.voice import Question

LISTEN_AUTO: Final = text_frame({"type": "listen", "state": "start", "mode": "auto"})
LISTEN_REALTIME: Final = text_frame({"type": "listen", "state": "start", "mode": "realtime"})
LISTEN_MANUAL: Final = text_frame({"type": "listen", "state": "start", "mode": "manual"})
LISTEN_STOP: Final = text_frame({"type": "listen", "state": "stop"})
ABORT: Final = text_frame({"type": "abort"})
TYPED: Final = text_frame(
    {"type": "listen", "state": "detect", "text": "Please tell me a long story."}
)
STRAY_SECONDS: Final = 0.3
"""How long after the end of an aborted reply its stray frames are waited for."""


@attrs.define
class TurnTimes:
    """When what happened; seconds of `time.monotonic`, NaN for what did not."""

    speech_ended: float = float("nan")
    """The last packet with voice was sent."""
    turn_ended: float = float("nan")
    """The packet was sent, or the button released, at which the server has to answer."""
    understood: float = float("nan")
    """`stt` came."""
    reply_began: float = float("nan")
    """`tts start` came."""
    frames: list[float] = attrs.field(factory=list)
    """Each frame of speech."""
    reply_ended: float = float("nan")
    """`tts stop` came."""


async def ask_aloud(device: LightDevice, question: Question, *, ends_with: int | None) -> TurnTimes:
    """Say the question in real time and hear the reply out.

    `ends_with` is the number of packets after which the server finds the end of the
    turn by itself; None releases a button after the last voice. The microphone stays
    open until the reply begins, as in firmware. Raises as `LightDevice.receive`.
    """
    times, answered = TurnTimes(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_speak, device, question, ends_with, times, answered)
        while (message := await device.receive()).kind != "tts start":
            if message.kind == "stt":
                times.understood = message.at
        times.reply_began = message.at
        answered.set()
    await _hear_out(device, times)
    return times


async def _speak(
    device: LightDevice,
    question: Question,
    ends_with: int | None,
    times: TurnTimes,
    answered: trio.Event,
) -> None:
    await device.send(LISTEN_MANUAL if ends_with is None else LISTEN_AUTO)
    due = trio.current_time()
    for number, packet in enumerate(question.packets, start=1):
        # An event and not a cancelled scope: half a frame would be the end of the connection.
        with trio.move_on_at(due):
            await answered.wait()
            return
        await device.send(frame(packet))
        due += UPLINK_FRAME_MS / 1000
        if number == question.voiced_packets:
            times.speech_ended = monotonic()
            if ends_with is None:
                await device.send(LISTEN_STOP)
                times.turn_ended = monotonic()
                return
        if number == ends_with:
            times.turn_ended = monotonic()


async def _hear_out(device: LightDevice, times: TurnTimes) -> None:
    while True:
        message = await device.receive()
        if message.body is None:
            times.frames.append(message.at)
        elif message.kind == "tts stop":
            times.reply_ended = message.at
            return


@attrs.frozen
class AbortTimes:
    """What followed an interruption; milliseconds since the packet that asked for it was sent."""

    stop_ms: float
    """`tts stop` came."""
    last_frame_ms: float
    """The last frame of speech came; 0 where none came any more."""
    stray_frames: int
    """Frames of the old reply after `tts stop`."""


async def ask_and_abort(device: LightDevice, *, after_seconds: float) -> AbortTimes:
    """Type a question and ask for silence some time after the first frame of the reply."""
    await device.send(TYPED)
    first = await device.wait_for("audio")
    with trio.move_on_after(after_seconds - (monotonic() - first.at)):
        await device.wait_for("tts stop")
        raise TooShort("the reply was over before it could be aborted; make it longer")
    aborted = monotonic()
    await device.send(ABORT)
    last_frame, stopped, strays = aborted, aborted, 0
    while stopped == aborted:
        message = await device.receive()
        if message.body is None:
            last_frame = message.at
        elif message.kind == "tts stop":
            stopped = message.at
    with trio.move_on_after(STRAY_SECONDS):
        while True:
            message = await device.receive()
            if message.body is None:
                last_frame, strays = message.at, strays + 1
    return AbortTimes((stopped - aborted) * 1000, (last_frame - aborted) * 1000, strays)


async def interrupt_aloud(
    device: LightDevice, said: Question, *, barge_ins: Sequence[int]
) -> list[AbortTimes]:
    """Speak in realtime mode, into the replies; gives what followed each interruption.

    `barge_ins` are the numbers of packets after which the server knows of them. The
    device is of no further use. Raises as `LightDevice.receive`, `TooShort` where no
    reply was being spoken, `NotSilenced` where one went on.
    """
    heard: list[Message] = []
    interrupted: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note_all, device, heard)
        await device.send(LISTEN_REALTIME)
        due = trio.current_time()
        for number, packet in enumerate(said.packets[: barge_ins[-1]], start=1):
            await trio.sleep_until(due)
            await device.send(frame(packet))
            due += UPLINK_FRAME_MS / 1000
            if number in barge_ins:
                interrupted.append(monotonic())
        await trio.sleep(STRAY_SECONDS)
        nursery.cancel_scope.cancel()
    return interruptions(interrupted, heard)


async def _note_all(device: LightDevice, heard: list[Message]) -> None:
    while True:
        heard.append(await device.receive())


def interruptions(interrupted: Sequence[float], heard: Sequence[Message]) -> list[AbortTimes]:
    """What followed each interruption, up to the beginning of the next reply.

    `interrupted` in seconds of `time.monotonic`. Raises `TooShort` where no reply was
    being spoken, `NotSilenced` where one went on.
    """
    found = []
    for at in interrupted:
        before = [message.kind for message in heard if message.at < at]
        after = [message for message in heard if message.at >= at]
        reply = before[_last(before, "tts start") :]
        if "audio" not in reply or "tts stop" in reply:
            raise TooShort("no reply was being spoken when it was to be interrupted")
        kinds = [message.kind for message in after]
        if "tts stop" not in kinds:
            raise NotSilenced("the reply went on after its interruption")
        stop = kinds.index("tts stop")
        next_reply = kinds.index("tts start") if "tts start" in kinds else len(kinds)
        frames = [number for number, kind in enumerate(kinds[:next_reply]) if kind == "audio"]
        found.append(
            AbortTimes(
                (after[stop].at - at) * 1000,
                (after[frames[-1]].at - at) * 1000 if frames else 0.0,
                sum(number > stop for number in frames),
            )
        )
    return found


def _last(kinds: Sequence[str], kind: str) -> int:
    return len(kinds) - 1 - kinds[::-1].index(kind) if kind in kinds else 0


class NotSilenced(Exception):
    """A reply went on although it was interrupted."""


class TooShort(Exception):
    """A reply ended before the scenario was done with it."""
