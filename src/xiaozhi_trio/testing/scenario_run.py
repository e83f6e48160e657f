"""Playing a scenario: in memory on a virtual clock, or in real time against a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, singledispatchmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from xiaozhi_trio.testing import scenario as kinds
from xiaozhi_trio.testing.expectations import (
    PATIENCE_SECONDS,
    Judge,
    Moment,
    Outcome,
    ToneVoice,
    Verdict,
    Voice,
    described,
)
from xiaozhi_trio.testing.firmware_device import Dial, FirmwareDevice
from xiaozhi_trio.testing.noises import NOISES, cough
from xiaozhi_trio.testing.rules import broken_rules
from xiaozhi_trio.testing.scenario import Scenario
from xiaozhi_trio.testing.scenario_engines import ScenarioEngines
from xiaozhi_trio.testing.timeline import Side, Timeline

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

_SAMPLES_PER_MS: Final = 16
_SOUNDS: Final = MappingProxyType({**NOISES, "cough": cough})

Join: TypeAlias = "Callable[[Scenario, ScenarioEngines], AbstractAsyncContextManager[Dial]]"
"""Brings up a server for the block and tells how to connect to it."""


@attrs.frozen(kw_only=True)
class Played:
    """How a scenario went."""

    scenario: Scenario
    verdicts: Sequence[Verdict]
    timeline: Timeline

    @property
    def failures(self) -> Sequence[Verdict]:
        """The expectations that failed, and the rules that were broken."""
        return [verdict for verdict in self.verdicts if verdict.outcome is Outcome.FAILED]


class _StepFailed(Exception):
    """The scenario cannot go on."""


async def play(
    scenario: Scenario,
    join: Join,
    *,
    voice: Voice | None = None,
    foreign: bool = False,
    tolerance_ms: float = 0.0,
) -> Played:
    """Play a scenario against the server that `join` brings up.

    `foreign` is for a server with engines of its own, `tolerance_ms` what real time
    adds to every limit.
    """
    timeline = Timeline()
    engines = ScenarioEngines.of(scenario.engines, timeline)
    async with join(scenario, engines) as dial, trio.open_nursery() as nursery:
        device = FirmwareDevice(dial, scenario.device, timeline)
        await nursery.start(device.run)
        judge = Judge(
            timeline=timeline,
            device=device,
            voice=voice or ToneVoice(),
            engines=None if foreign else engines,
            tolerance=tolerance_ms / 1000,
        )
        verdicts = await _Performance(scenario, judge, nursery).perform()
        nursery.cancel_scope.cancel()
    return Played(scenario=scenario, verdicts=verdicts, timeline=timeline)


class _Performance:
    """The person of a scenario, and the judge beside them."""

    def __init__(self, scenario: Scenario, judge: Judge, nursery: trio.Nursery) -> None:
        self._scenario = scenario
        self._judge = judge
        self._device = judge.device
        self._timeline = judge.timeline
        self._nursery = nursery
        self._verdicts: list[Verdict] = []

    async def perform(self) -> list[Verdict]:
        """Do step after step until one fails; then look at the whole."""
        position = len(self._timeline)
        for number, step in enumerate(self._scenario.steps, start=1):
            try:
                await self._perform(step)
            except _StepFailed as failure:
                self._fail(f"step {number}", str(failure))
                return self._verdicts
            if any(verdict.outcome is Outcome.FAILED for verdict in self._verdicts):
                return self._verdicts
        whole = Moment(position, self._timeline.began_at, trio.current_time())
        for expectation in self._scenario.expect:
            if isinstance(expectation, kinds.ExpectAbsent):
                expectation = _never(expectation, whole)
            self._verdicts.append(await self._judge.verdict(expectation, whole))
        self._judge_rules()
        return self._verdicts

    async def _perform(self, step: kinds.Step) -> None:
        position = len(self._timeline)
        start = trio.current_time()
        self._timeline.add(Side.PERSON, *_told(step))
        spoken = await self._do(step)
        start, end = spoken or (start, trio.current_time())
        moment = Moment(position, start, end)
        for expectation in step.expect:
            self._verdicts.append(await self._judge.verdict(expectation, moment))

    def _judge_rules(self) -> None:
        broken = broken_rules(self._timeline.happenings, self._device.loudspeaker.losses)
        for name, reason in broken:
            if name not in self._scenario.breaks:
                self._fail(f"rule {name!r}", reason)

    def _fail(self, what: str, reason: str) -> None:
        self._verdicts.append(Verdict(what, Outcome.FAILED, reason))

    @singledispatchmethod
    async def _do(self, step: Any) -> tuple[float, float] | None:
        """Do it; gives from when to when it sounded, where it is a sound."""
        raise TypeError(f"no step: {step!r}")

    @_do.register
    async def _say(self, step: kinds.Say) -> tuple[float, float]:
        sounds = [
            bytes(part * _SAMPLES_PER_MS * 2)
            if isinstance(part, int)
            else await self._judge.voice.utter(part, step.level)
            for part in step.say
        ]
        if step.when == "listening":
            await self._until_it_listens()
        return await self._sound(b"".join(sounds), "voice ends", wait=step.wait)

    async def _until_it_listens(self) -> None:
        with trio.move_on_after(PATIENCE_SECONDS) as patience:
            await self._timeline.wait_until(lambda: self._device.microphone_is_open)
            self._timeline.add(Side.PERSON, "begins to speak")
        if patience.cancelled_caught:
            raise _StepFailed(f"the microphone has not opened within {PATIENCE_SECONDS:g} s")

    @_do.register
    async def _make_noise(self, step: kinds.Sound) -> tuple[float, float]:
        pcm = _SOUNDS[step.sound](step.for_ms / 1000, step.level_db)
        return await self._sound(pcm, "sound ends", wait=step.wait)

    async def _sound(self, pcm: bytes, ends: str, *, wait: bool) -> tuple[float, float]:
        start = trio.current_time()
        end = self._device.room.sound(start, pcm)
        if wait:
            await self._note_at(end, ends)
        else:
            self._nursery.start_soon(self._note_at, end, ends)
        return start, end

    async def _note_at(self, at: float, kind: str) -> None:
        await trio.sleep_until(at)
        self._timeline.add(Side.PERSON, kind)

    @_do.register
    async def _wait(self, step: kinds.Wait) -> None:
        await trio.sleep(step.wait_ms / 1000)

    @_do.register
    async def _wait_for(self, step: kinds.WaitFor) -> None:
        event = await self._judge.happened(
            step.wait_for,
            len(self._timeline),
            text=step.text,
            count=step.count,
            until=trio.current_time() + step.patience_ms / 1000,
        )
        if event is None:
            raise _StepFailed(f"waited {step.patience_ms} ms for {described(step)}")

    @_do.register
    async def _press(self, step: kinds.Press) -> None:
        press = self._device.press_button if step.press == "button" else self._device.press_talk
        await press()

    @_do.register
    async def _release(self, step: kinds.Release) -> None:  # noqa: ARG002 - there is one to let go
        await self._device.release_talk()

    @_do.register
    async def _wake(self, step: kinds.Wake) -> None:
        sound = await self._judge.voice.utter(step.wake, 9000) if step.wake else b""
        await self._device.wake(sound)

    @_do.register
    async def _type(self, step: kinds.Type) -> None:
        await self._device.type_text(step.type)

    @_do.register
    async def _connect(self, step: kinds.Connect) -> None:  # noqa: ARG002 - there is one way
        await self._device.connect()

    @_do.register
    async def _disconnect(self, step: kinds.Disconnect) -> None:
        await self._device.lose_connection(reset=step.disconnect == "rst")

    @_do.register
    async def _let_through(self, step: kinds.Network) -> None:
        await trio.lowlevel.checkpoint()
        downlink = self._device.downlink
        if step.network == "stalls":
            downlink.stall()
        else:
            downlink.flow()

    @_do.register
    async def _stop(self, step: kinds.Stop) -> None:  # noqa: ARG002 - there is one way
        await trio.lowlevel.checkpoint()
        if self._judge.engines is None:
            raise _StepFailed("this server is not ours to stop")
        self._judge.engines.shutdown.set()

    @_do.register
    async def _send(self, step: kinds.Send) -> None:
        await self._send_often(partial(self._device.send_json, **step.send), step.times)

    @_do.register
    async def _send_text(self, step: kinds.SendText) -> None:
        await self._send_often(partial(self._device.send_raw, step.send_text), step.times)

    @_do.register
    async def _send_bytes(self, step: kinds.SendBytes) -> None:
        payload = bytes.fromhex(step.send_hex)
        await self._send_often(partial(self._device.send_raw, payload), step.times)

    async def _send_often(self, send: Callable[[], Any], times: int) -> None:
        for _ in range(times):
            try:
                await send()
            except trio.BrokenResourceError:
                raise _StepFailed("the server has hung up") from None


def _never(expected: kinds.ExpectAbsent, whole: Moment) -> kinds.ExpectAbsent:
    length = round((whole.end - whole.start) * 1000)
    return attrs.evolve(expected, since="start", for_ms=length)


def _told(step: kinds.Step) -> tuple[str, str]:
    """A step in words: its first key of its own, and the value."""
    field = next(field for field in attrs.fields(type(step)) if field.name != "expect")
    value = getattr(step, field.name)
    text = " … ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return field.name.replace("_", " "), text
