"""A load process: many simulated devices, and how late it was itself.

Run as `python -m xiaozhi_trio.bench.load`; it answers the requests of a `Fleet`.
"""

from __future__ import annotations

import gc
from itertools import cycle
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from xiaozhi_trio.bench.client_frames import TEXT, UnexpectedAnswer, frame
from xiaozhi_trio.bench.light_device import LightDevice
from xiaozhi_trio.bench.line_process import answer_requests
from xiaozhi_trio.bench.schedule import deviations_ms, silence_ms
from xiaozhi_trio.bench.turns import (
    LISTEN_MANUAL,
    TYPED,
    NotSilenced,
    TooShort,
    TurnTimes,
    ask_aloud,
    ask_and_abort,
    interrupt_aloud,
)
from xiaozhi_trio.bench.voice import UPLINK_FRAME_MS, question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xiaozhi_trio.bench.turns import AbortTimes

_LAG_PERIOD_SECONDS: Final = 0.005
_FRAME_MS: Final = 60
_BABBLE_MS: Final = 1500
_TURN_SECONDS: Final = 60.0
_REQUESTS: Final = (
    "handshakes",
    "rehearse",
    "connect",
    "rest",
    "babble",
    "recite",
    "turns",
    "aborts",
    "barge_ins",
    "flood",
    "leave",
)
_BROKEN: Final = (OSError, trio.EndOfChannel, UnexpectedAnswer)
_GARBAGE: Final = (
    frame(b'{"type":"no-such-type","n":1}', TEXT),
    frame(bytes(range(120))),
    frame(b"{not json", TEXT),
    frame(b'{"type":"listen","state":"start","mode":"auto"}', TEXT),
)
"""What a hostile client sends in turns: unknown, corrupt, malformed and real messages."""


@attrs.define
class Tally:
    """What one request measured."""

    samples: dict[str, list[float]] = attrs.field(factory=dict)
    """Milliseconds, by name of the figure."""
    counts: dict[str, int] = attrs.field(factory=dict)
    problems: set[str] = attrs.field(factory=set)

    def add(self, name: str, *values: float) -> None:
        """Record values of a figure; NaN is recorded nowhere."""
        self.samples.setdefault(name, []).extend(value for value in values if value == value)

    def count(self, name: str, number: int = 1) -> None:
        """Count an event."""
        self.counts[name] = self.counts.get(name, 0) + number

    def problem(self, error: BaseException) -> None:
        """Count something that went wrong, and keep what was said about it."""
        self.count("failed")
        self.problems.add(f"{type(error).__name__}: {error}"[:200])

    def as_json(self) -> Mapping[str, Any]:
        """What `answer_requests` sends."""
        return {
            "samples": self.samples,
            "counts": self.counts,
            "problems": sorted(self.problems)[:5],
        }


class Load:
    """The devices of one process."""

    def __init__(self) -> None:
        self._devices: list[LightDevice] = []
        self._lags: list[float] = []

    async def watch_lag(self) -> None:
        """Record how late this process wakes up, for ever."""
        due = trio.current_time()
        while True:
            due = max(due + _LAG_PERIOD_SECONDS, trio.current_time())
            await trio.sleep_until(due)
            self._lags.append((trio.current_time() - due) * 1000)

    def _report(self, tally: Tally) -> Mapping[str, Any]:
        lags, self._lags = self._lags, []
        tally.add("lag", *lags)
        return tally.as_json()

    async def handshakes(
        self, *, url: str, first_device: int, parallel: int, seconds: float
    ) -> Mapping[str, Any]:
        """Connect, say hello, get the server's and close, over and over for some seconds."""
        tally, address = Tally(), urlsplit(url)
        end = trio.current_time() + seconds

        async def over_and_over(number: int) -> None:
            while trio.current_time() < end:
                began = monotonic()
                try:
                    device = await LightDevice.dial(address, device_id(number))
                    try:
                        await device.hello()
                    finally:
                        device.close()
                except _BROKEN as error:
                    tally.problem(error)
                    return
                tally.add("handshake", (monotonic() - began) * 1000)
                tally.count("handshakes")

        began = monotonic()
        async with trio.open_nursery() as nursery:
            for number in range(parallel):
                nursery.start_soon(over_and_over, first_device + number)
        tally.add("elapsed", (monotonic() - began) * 1000)
        return self._report(tally)

    async def connect(
        self, *, url: str, first_device: int, devices: int, parallel: int
    ) -> Mapping[str, Any]:
        """Connect this many devices, `parallel` at a time, and keep them."""
        tally, address = Tally(), urlsplit(url)
        room = trio.CapacityLimiter(parallel)
        began = monotonic()

        async def one(number: int) -> None:
            async with room:
                began_one = monotonic()
                try:
                    device = await LightDevice.dial(address, device_id(number))
                    self._devices.append(device)
                    await device.hello()
                except _BROKEN as error:
                    tally.problem(error)
                    return
                tally.add("connect", (monotonic() - began_one) * 1000)
                tally.count("connected")

        async with trio.open_nursery() as nursery:
            for number in range(devices):
                nursery.start_soon(one, first_device + number)
        tally.add("elapsed", (monotonic() - began) * 1000)
        return self._report(tally)

    async def rehearse(self, *, said_ms: Sequence[int]) -> Mapping[str, Any]:
        """Make what will be said, which takes up to a second that is not measured."""
        question(*said_ms)
        await trio.sleep(2 * _LAG_PERIOD_SECONDS)
        return self._report(Tally())

    async def rest(self, *, seconds: float) -> Mapping[str, Any]:
        """Do nothing with the devices for some seconds."""
        await trio.sleep(seconds)
        return self._report(Tally())

    async def babble(self, *, seconds: float) -> Mapping[str, Any]:
        """Every device holds its button and speaks, without an end."""
        tally = Tally()
        said = question(_BABBLE_MS)
        packets = [frame(packet) for packet in said.packets[: said.voiced_packets]]
        end = trio.current_time() + seconds

        async def one(device: LightDevice, pause: float) -> None:
            due = trio.current_time() + pause
            try:
                await device.send(LISTEN_MANUAL)
                for packet in cycle(packets):
                    await trio.sleep_until(due)
                    if due >= end:
                        return
                    await device.send(packet)
                    tally.count("frames")
                    due += UPLINK_FRAME_MS / 1000
            except OSError as error:
                tally.problem(error)

        async with trio.open_nursery() as nursery:
            for number, device in enumerate(self._devices):
                pause = UPLINK_FRAME_MS / 1000 * number / len(self._devices)
                nursery.start_soon(one, device, pause)
        return self._report(tally)

    async def recite(self, *, seconds: float) -> Mapping[str, Any]:
        """Every device asks by text and listens, again and again."""
        tally = Tally()

        async def one(device: LightDevice) -> None:
            try:
                with trio.move_on_after(seconds):
                    while True:
                        await device.send(TYPED)
                        while (message := await device.receive()).kind != "tts stop":
                            tally.count("frames", message.body is None)
            except _BROKEN as error:
                tally.problem(error)

        async with trio.open_nursery() as nursery:
            for device in self._devices:
                nursery.start_soon(one, device)
        return self._report(tally)

    async def turns(
        self,
        *,
        said_ms: Sequence[int],
        within_seconds: float,
        ends_with: int | None,
        engines_ms: float | None,
    ) -> Mapping[str, Any]:
        """One spoken question and its answer for every device.

        The devices begin at even distances within `within_seconds`. `engines_ms` is what
        of the time to the first frame is not the server's own, None where that is unknown.
        """
        tally, said = Tally(), question(*said_ms)

        async def one(device: LightDevice, pause: float) -> None:
            await trio.sleep(pause)
            with trio.move_on_after(_TURN_SECONDS) as patience:
                try:
                    times = await ask_aloud(device, said, ends_with=ends_with)
                except* _BROKEN as errors:
                    tally.problem(errors.exceptions[0])
                else:
                    _judge(times, tally, engines_ms)
            if patience.cancelled_caught:
                tally.count("unanswered")

        async with trio.open_nursery() as nursery:
            for number, device in enumerate(self._devices):
                pause = within_seconds * number / len(self._devices)
                nursery.start_soon(one, device, pause)
        return self._report(tally)

    async def aborts(self, *, times: int, after_seconds: float) -> Mapping[str, Any]:
        """Every device asks and aborts the answer, this many times."""
        tally = Tally()

        async def one(device: LightDevice, pause: float) -> None:
            await trio.sleep(pause)
            for _ in range(times):
                try:
                    aborted = await ask_and_abort(device, after_seconds=after_seconds)
                except (*_BROKEN, TooShort) as error:
                    tally.problem(error)
                    return
                _add_interruption(tally, "abort", aborted)

        async with trio.open_nursery() as nursery:
            for number, device in enumerate(self._devices):
                nursery.start_soon(one, device, after_seconds * number / len(self._devices))
        return self._report(tally)

    async def barge_ins(
        self, *, said_ms: Sequence[int], within_seconds: float, barge_ins: Sequence[int]
    ) -> Mapping[str, Any]:
        """Every device speaks into the replies; see `interrupt_aloud`."""
        tally, said = Tally(), question(*said_ms)

        async def one(device: LightDevice, pause: float) -> None:
            await trio.sleep(pause)
            try:
                for times in await interrupt_aloud(device, said, barge_ins=barge_ins):
                    _add_interruption(tally, "barge-in", times)
            except* (*_BROKEN, TooShort, NotSilenced) as errors:
                tally.problem(errors.exceptions[0])

        async with trio.open_nursery() as nursery:
            for number, device in enumerate(self._devices):
                nursery.start_soon(one, device, within_seconds * number / len(self._devices))
        return self._report(tally)

    async def flood(self, *, messages: int) -> Mapping[str, Any]:
        """Every device sends this many messages as fast as they are taken."""
        tally = Tally()
        began = monotonic()

        async def one(device: LightDevice) -> None:
            try:
                for number in range(messages):
                    await device.send(_GARBAGE[number % len(_GARBAGE)])
            except OSError as error:
                tally.problem(error)
                return
            tally.count("floods")

        async with trio.open_nursery() as nursery:
            for device in self._devices:
                nursery.start_soon(one, device)
        tally.add("flood", (monotonic() - began) * 1000)
        return self._report(tally)

    async def leave(self) -> Mapping[str, Any]:
        """Close all connections."""
        await trio.lowlevel.checkpoint()
        for device in self._devices:
            device.close()
        self._devices.clear()
        return self._report(Tally())


def device_id(number: int) -> str:
    """The MAC address of a device of the bench, of those that nobody owns."""
    return ":".join(f"{byte:02x}" for byte in (0x02 << 40 | number).to_bytes(6, "big"))


def _add_interruption(tally: Tally, what: str, times: AbortTimes) -> None:
    tally.count(f"{what}s")
    tally.count("frames after tts stop", times.stray_frames)
    tally.add(f"{what} to tts stop", times.stop_ms)
    tally.add(f"{what} to last frame", times.last_frame_ms)


def _judge(times: TurnTimes, tally: Tally, engines_ms: float | None) -> None:
    if not times.frames:
        tally.count("unanswered")
        return
    first = times.frames[0]
    tally.count("answered")
    tally.add("voice to first frame", (first - times.speech_ended) * 1000)
    for name, at in (
        ("end to stt", times.understood),
        ("end to tts start", times.reply_began),
        ("end to speech", first),
    ):
        tally.add(name, (at - times.turn_ended) * 1000)
    if engines_ms is not None:
        tally.add("own latency", (first - times.turn_ended) * 1000 - engines_ms)
    deviations = deviations_ms(times.frames, _FRAME_MS)
    tally.add("off schedule", *map(abs, deviations))
    tally.add("latest frame", max(deviations, default=float("nan")))
    tally.add("silence in speech", silence_ms(times.frames, _FRAME_MS))
    tally.count("frames", len(times.frames))
    tally.count("frames on time", sum(abs(deviation) <= 10 for deviation in deviations))
    tally.count("paced frames", len(deviations))


async def main() -> None:
    """Answer requests until there are no more."""
    load = Load()
    # A full collection among thousands of devices would be taken for the server's slowness.
    gc.collect()
    gc.disable()
    handlers = {name: getattr(load, name) for name in _REQUESTS}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.watch_lag)
        await answer_requests(handlers)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
