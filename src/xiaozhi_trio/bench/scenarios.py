"""What simulated devices do with a server, and the figures it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.fleet import Fleet
from xiaozhi_trio.bench.target import Target

if TYPE_CHECKING:
    from xiaozhi_trio.bench.fleet import Measured
    from xiaozhi_trio.bench.procfs import Cost

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 5.0
_SETTLE_SECONDS: Final = 0.5
_PARALLEL: Final = 20
_BURST_SECONDS: Final = 1.0
_SPREAD_SECONDS: Final = 8.0
_HOSTILE_CLIENTS: Final = 10
_HOSTILE_MESSAGES: Final = 5000
_FRAMES_SECONDS: Final = 6.0
_ABORTS: Final = 4
_ABORT_SECONDS: Final = 1.0


class ScenarioFailed(Exception):
    """A scenario gave no figures; the text says why."""


@attrs.frozen(kw_only=True)
class Stage:
    """What a scenario is played with."""

    target: Target
    fleet: Fleet
    strangers: Fleet
    """Load processes of their own for those who misbehave."""
    devices: int


Play: TypeAlias = Callable[[Stage], Awaitable[Sequence[Figure]]]


@attrs.frozen(kw_only=True)
class Scenario:
    """One scenario by its name on the command line."""

    name: str
    what: str
    devices: int
    """How many take part unless the command line says otherwise."""
    play: Play


async def _connect(stage: Stage) -> list[Figure]:
    before = stage.target.cost()
    measured = await stage.fleet.handshakes(
        stage.target.url, parallel=stage.devices, seconds=CONNECT_SECONDS
    )
    after = stage.target.cost()
    seconds = max(measured.of("elapsed")) / 1000
    done = measured.count("handshakes")
    if not done:
        raise _nobody_came_in(stage, measured)
    figures = [
        _single("handshakes a second", "/s", done / seconds),
        Figure.of("connect and hello", "ms", measured.of("handshake")),
    ]
    if before and after:
        cpu = (after.cpu_seconds - before.cpu_seconds) / done
        figures.append(_single("server CPU a handshake", "ms", cpu * 1000))
    return [*figures, *_trouble(measured)]


async def _idle(stage: Stage) -> list[Figure]:
    before = stage.target.cost()
    began = monotonic()
    measured = await _gather(stage, stage.devices)
    figures = [_single("all connected after", "s", monotonic() - began)]
    await trio.sleep(_SETTLE_SECONDS)
    connected = stage.target.cost()
    rest = await stage.fleet.ask("rest", seconds=IDLE_SECONDS)
    after = stage.target.cost()
    if before and connected and after:
        figures += [
            _single(
                "memory a device",
                "KB",
                (connected.private_bytes - before.private_bytes) / 1024 / stage.devices,
            ),
            _single("threads more", "", connected.threads - before.threads),
            _cores(connected, after, IDLE_SECONDS),
        ]
    return [
        *figures,
        _single("devices connected", "", measured.count("connected")),
        Figure.of("connect and hello", "ms", measured.of("connect")),
        *_trouble(measured),
        Figure.of("load lag at rest", "ms", rest.of("lag")),
    ]


def _turns(within_seconds: float) -> Play:
    async def play(stage: Stage) -> list[Figure]:
        await _gather(stage, stage.devices)
        return await _speak(stage, within_seconds)

    return play


async def _speak(stage: Stage, within_seconds: float) -> list[Figure]:
    target = stage.target
    before, began = target.cost(), monotonic()
    measured = await stage.fleet.ask(
        "turns",
        within_seconds=within_seconds,
        ends_with=target.ends_with,
        engines_ms=target.engines_ms,
    )
    after, seconds = target.cost(), monotonic() - began
    figures = []
    if measured.of("own latency"):
        figures.append(Figure.of("own latency to speech", "ms", measured.of("own latency")))
    paced = measured.count("paced frames") or 1
    silences = measured.of("silence in speech")
    figures += [
        Figure.of("voice to speech", "ms", measured.of("voice to first frame")),
        Figure.of("frames off schedule", "ms", measured.of("off schedule")),
        _single("frames within 10 ms", "%", 100 * measured.count("frames on time") / paced),
        Figure.of("latest frame of a turn", "ms", measured.of("latest frame")),
        Figure.of("silence in speech", "ms", silences),
        _single("turns with a gap", "", sum(silence > 0 for silence in silences)),
        _single("turns answered", "", measured.count("answered")),
    ]
    if before and after:
        figures.append(_cores(before, after, seconds))
        waited = 100 * (after.waited_seconds - before.waited_seconds) / seconds
        figures.append(_single("server kept from its core", "%", waited))
    return [*figures, *_trouble(measured)]


async def _frames(stage: Stage) -> list[Figure]:
    await _gather(stage, stage.devices)
    figures = []
    for request, name in (("babble", "in"), ("recite", "out")):
        before, began = stage.target.cost(), monotonic()
        measured = await stage.fleet.ask(request, seconds=_FRAMES_SECONDS)
        after, seconds = stage.target.cost(), monotonic() - began
        if before and after and measured.count("frames"):
            cpu = (after.cpu_seconds - before.cpu_seconds) / measured.count("frames")
            figures.append(_single(f"server CPU a frame {name}", "us", cpu * 1e6))
            figures.append(_single(f"frames {name}", "/s", measured.count("frames") / seconds))
        figures += _trouble(measured)[:1]
    return figures


async def _abort(stage: Stage) -> list[Figure]:
    await _gather(stage, stage.devices)
    measured = await stage.fleet.ask("aborts", times=_ABORTS, after_seconds=_ABORT_SECONDS)
    return [
        Figure.of("abort to last frame", "ms", measured.of("abort to last frame")),
        Figure.of("abort to tts stop", "ms", measured.of("abort to tts stop")),
        _single("frames after tts stop", "", measured.count("frames after tts stop")),
        *_trouble(measured),
    ]


async def _hostile(stage: Stage) -> list[Figure]:
    figures: list[Figure] = []
    await _gather(stage, stage.devices)
    await stage.strangers.connect(
        stage.target.url, devices=_HOSTILE_CLIENTS, parallel=_HOSTILE_CLIENTS
    )

    async def flood() -> None:
        # In mid-speech of everybody else.
        await trio.sleep(_BURST_SECONDS + 3.0)
        flooded = await stage.strangers.ask("flood", messages=_HOSTILE_MESSAGES)
        figures.append(_single("flood took", "s", max(flooded.of("flood")) / 1000))
        figures.append(_single("floods cut off", "", flooded.count("failed")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        figures += await _speak(stage, _BURST_SECONDS)
    return figures


async def _gather(stage: Stage, devices: int) -> Measured:
    measured = await stage.fleet.connect(stage.target.url, devices=devices, parallel=_PARALLEL)
    if not measured.count("connected"):
        raise _nobody_came_in(stage, measured)
    return measured


def _nobody_came_in(stage: Stage, measured: Measured) -> ScenarioFailed:
    problems = "; ".join(dict.fromkeys(measured.problems))
    return ScenarioFailed(f"no device could connect to {stage.target.url}: {problems}")


def _trouble(measured: Measured) -> list[Figure]:
    """What tells whether the figures beside it are good: failures, and the load's own lag."""
    return [
        _single("failed", "", measured.count("failed") + measured.count("unanswered")),
        Figure.of("load lag", "ms", measured.of("lag")),
    ]


def _cores(before: Cost, after: Cost, seconds: float) -> Figure:
    return _single("server CPU", "cores", (after.cpu_seconds - before.cpu_seconds) / seconds)


def _single(name: str, unit: str, value: float) -> Figure:
    return Figure.of(name, unit, [value])


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="connect",
            what="connect, hello and close, over and over",
            devices=10,
            play=_connect,
        ),
        Scenario(name="idle", what="connected devices that do nothing", devices=500, play=_idle),
        Scenario(
            name="burst",
            what="a spoken turn of every device, all begun within a second",
            devices=50,
            play=_turns(_BURST_SECONDS),
        ),
        Scenario(
            name="spread",
            what="a spoken turn of every device, begun over eight seconds",
            devices=50,
            play=_turns(_SPREAD_SECONDS),
        ),
        Scenario(
            name="frames",
            what="speech only one way: first to the server, then from it",
            devices=50,
            play=_frames,
        ),
        Scenario(
            name="abort", what="replies aborted in mid-speech, four each", devices=25, play=_abort
        ),
        Scenario(
            name="hostile",
            what="a burst while ten other clients flood 5,000 messages each",
            devices=25,
            play=_hostile,
        ),
    )
}
