"""What simulated devices do with a server, and the figures it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.fleet import Fleet
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.speculation import Speculation
from xiaozhi_trio.bench.target import Target
from xiaozhi_trio.config.settings import ListeningSettings

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
_OPENING: Final = "Once upon a time, there was a little server."
"""Speech begins with its first clause, four words long."""
_HESITANT_MS: Final = (900, 300, 900, 300, 900)
_INTERRUPTING_MS: Final = (1500, 3500, 600, 4000, 600, 4000, 600)
"""A question, and three times something said into the reply."""


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
    script: Script


Play: TypeAlias = Callable[[Stage], Awaitable[Sequence[Figure]]]


def _as_it_is(script: Script) -> Script:
    return script


@attrs.frozen(kw_only=True)
class Scenario:
    """One scenario by its name on the command line."""

    name: str
    what: str
    devices: int
    """How many take part unless the command line says otherwise."""
    play: Play
    stage_direction: Callable[[Script], Script] = _as_it_is
    """The script of this scenario, made from that of the command line."""


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
        said_ms=stage.script.said_ms,
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
        figures += [_cores(before, after, seconds), _kept_waiting(before, after, seconds)]
    return [*figures, *_trouble(measured)]


def _prompt(within_seconds: float) -> Play:
    """Turns whose latency counts from the end that the server is committed to."""

    async def play(stage: Stage) -> list[Figure]:
        await _gather(stage, stage.devices)
        target = stage.target
        prepared = await target.speculation() if target.speculation else Speculation()
        before, began = target.cost(), monotonic()
        measured = await stage.fleet.ask(
            "turns",
            said_ms=stage.script.said_ms,
            within_seconds=within_seconds,
            ends_with=target.ends_with,
            engines_ms=None if stage.script.listening.speculation else target.engines_ms,
        )
        after, seconds = target.cost(), monotonic() - began
        figures = [
            Figure.of(name, "ms", measured.of(name))
            for name in ("end to stt", "end to tts start", "end to speech")
        ]
        if measured.of("own latency"):
            figures.append(Figure.of("own latency to speech", "ms", measured.of("own latency")))
        figures += [
            Figure.of("voice to speech", "ms", measured.of("voice to first frame")),
            _single("turns with a gap", "", sum(s > 0 for s in measured.of("silence in speech"))),
            _single("turns answered", "", measured.count("answered")),
        ]
        if target.speculation:
            figures += _of_speculation(prepared, await target.speculation())
        if before and after and measured.count("answered"):
            cpu = (after.cpu_seconds - before.cpu_seconds) / measured.count("answered")
            figures.append(_single("server CPU a turn", "ms", cpu * 1000))
            figures.append(_kept_waiting(before, after, seconds))
        return [*figures, *_trouble(measured)]

    return play


def _of_speculation(before: Speculation, after: Speculation) -> list[Figure]:
    begun, discarded = after.begun - before.begun, after.discarded - before.discarded
    turns = after.turns - before.turns or 1
    return [
        _single("answers prepared", "", begun),
        _single("prepared in vain", "", discarded),
        _single("share in vain", "%", 100 * discarded / (begun or 1)),
        _single("engine time in vain a turn", "ms", (after.wasted_ms - before.wasted_ms) / turns),
    ]


async def _barge_in(stage: Stage) -> list[Figure]:
    if not stage.target.barge_ins:
        raise ScenarioFailed(
            f"when {stage.target.url} hears an interruption is not known; "
            "leave --url away for a server of which it is"
        )
    await _gather(stage, stage.devices)
    before, began = stage.target.cost(), monotonic()
    measured = await stage.fleet.ask(
        "barge_ins",
        said_ms=stage.script.said_ms,
        within_seconds=_BURST_SECONDS,
        barge_ins=stage.target.barge_ins,
    )
    after, seconds = stage.target.cost(), monotonic() - began
    if not measured.count("barge-ins"):
        raise ScenarioFailed(f"no reply was interrupted: {_problems(measured)}")
    figures = [
        Figure.of("barge-in to tts stop", "ms", measured.of("barge-in to tts stop")),
        Figure.of("barge-in to last frame", "ms", measured.of("barge-in to last frame")),
        _single("frames after tts stop", "", measured.count("frames after tts stop")),
        _single("interruptions", "", measured.count("barge-ins")),
    ]
    if before and after:
        figures += [_cores(before, after, seconds), _kept_waiting(before, after, seconds)]
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
    await stage.fleet.ask("rehearse", said_ms=stage.script.said_ms)
    measured = await stage.fleet.connect(stage.target.url, devices=devices, parallel=_PARALLEL)
    if not measured.count("connected"):
        raise _nobody_came_in(stage, measured)
    return measured


def _nobody_came_in(stage: Stage, measured: Measured) -> ScenarioFailed:
    return ScenarioFailed(f"no device could connect to {stage.target.url}: {_problems(measured)}")


def _problems(measured: Measured) -> str:
    return "; ".join(dict.fromkeys(measured.problems))


def _trouble(measured: Measured) -> list[Figure]:
    """What tells whether the figures beside it are good: failures, and the load's own lag."""
    return [
        _single("failed", "", measured.count("failed") + measured.count("unanswered")),
        Figure.of("load lag", "ms", measured.of("lag")),
    ]


def _cores(before: Cost, after: Cost, seconds: float) -> Figure:
    return _single("server CPU", "cores", (after.cpu_seconds - before.cpu_seconds) / seconds)


def _kept_waiting(before: Cost, after: Cost, seconds: float) -> Figure:
    waited = 100 * (after.waited_seconds - before.waited_seconds) / seconds
    return _single("server kept from its core", "%", waited)


def _single(name: str, unit: str, value: float) -> Figure:
    return Figure.of(name, unit, [value])


def _quick(**listening: Any) -> Callable[[Script], Script]:
    """Engines as quick as good ones are, and a server that listens so."""

    def direction(script: Script) -> Script:
        return attrs.evolve(
            script,
            recognition_ms=50,
            first_token_ms=50,
            token_ms=25,
            synthesis_ms=50,
            sentence=_OPENING,
            listening=ListeningSettings(**listening),
        )

    return direction


def _saying(
    said_ms: tuple[int, ...], direction: Callable[[Script], Script]
) -> Callable[[Script], Script]:
    return lambda script: attrs.evolve(direction(script), said_ms=said_ms)


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
        Scenario(
            name="turns",
            what="as burst, with quick engines and answers prepared before the end",
            devices=50,
            play=_prompt(_BURST_SECONDS),
            stage_direction=_quick(),
        ),
        Scenario(
            name="turns-spread",
            what="the same, begun over eight seconds",
            devices=50,
            play=_prompt(_SPREAD_SECONDS),
            stage_direction=_quick(),
        ),
        Scenario(
            name="turns-waiting",
            what="as turns, answers begun at the end",
            devices=50,
            play=_prompt(_BURST_SECONDS),
            stage_direction=_quick(speculation=False),
        ),
        Scenario(
            name="turns-spread-waiting",
            what="as turns-spread, answers begun at the end",
            devices=50,
            play=_prompt(_SPREAD_SECONDS),
            stage_direction=_quick(speculation=False),
        ),
        Scenario(
            name="impatient",
            what="a turn that ends with 200 ms of silence",
            devices=1,
            play=_prompt(_BURST_SECONDS),
            stage_direction=_quick(end_silence_ms=200),
        ),
        Scenario(
            name="hesitant",
            what="as turns-spread, by speakers who pause twice for 300 ms",
            devices=50,
            play=_prompt(_SPREAD_SECONDS),
            stage_direction=_saying(_HESITANT_MS, _quick()),
        ),
        Scenario(
            name="hesitant-waiting",
            what="as hesitant, answers begun at the end",
            devices=50,
            play=_prompt(_SPREAD_SECONDS),
            stage_direction=_saying(_HESITANT_MS, _quick(speculation=False)),
        ),
        Scenario(
            name="barge-in",
            what="replies interrupted by voice, three each",
            devices=50,
            play=_barge_in,
            stage_direction=_saying(_INTERRUPTING_MS, _quick()),
        ),
    )
}
