"""Whether what was expected has happened."""

from __future__ import annotations

import enum
from difflib import SequenceMatcher
from functools import singledispatchmethod
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.testing import scenario as kinds
from xiaozhi_trio.testing.firmware_device import FirmwareDevice
from xiaozhi_trio.testing.loudspeaker import sound_of
from xiaozhi_trio.testing.scenario_engines import ScenarioEngines
from xiaozhi_trio.testing.timeline import Timeline
from xiaozhi_trio.testing.tone_speech import speech, transcript

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xiaozhi_trio.testing.timeline import Happening

PATIENCE_SECONDS: Final = 30.0
"""How long to wait for what has no time limit."""

_LATE_SECONDS: Final = 1.0
"""How long to wait beyond a limit, to be able to tell by how much it was missed."""
_ACTING_SECONDS: Final = 0.05
"""What a device takes to act on what it was told last."""
_SETTLING_SECONDS: Final = 1.0
"""How long it may take to come to rest."""
_REPLY_GAP_SECONDS: Final = 20.0
"""A longer silence is between replies, not inside one."""
_ALIKE: Final = 0.6
"""Likeness from which two texts count as the same where real speech was recognised."""


class Voice(Protocol):
    """How the person of a scenario speaks and understands."""

    is_exact: bool
    """Whether every word comes through as it was said."""

    async def utter(self, text: str, level: int) -> bytes:
        """The sound of a text: PCM at `LISTENING_RATE`."""

    async def understand(self, pcm: bytes) -> str:
        """What was said in PCM at `LISTENING_RATE`."""


class ToneVoice:
    """A person who speaks and understands tone speech."""

    is_exact = True

    async def utter(self, text: str, level: int) -> bytes:
        """The tones of the text."""
        await trio.lowlevel.checkpoint()
        return speech(text, LISTENING_RATE, level=level)

    async def understand(self, pcm: bytes) -> str:
        """The text of the tones."""
        await trio.lowlevel.checkpoint()
        return transcript(pcm)


class Outcome(enum.Enum):
    """How an expectation fared."""

    HELD = "held"
    FAILED = "failed"
    UNCHECKED = "not checkable here"


@attrs.frozen
class Verdict:
    """One expectation and how it fared."""

    expectation: str
    outcome: Outcome
    reason: str = ""


@attrs.frozen
class Moment:
    """A step, as expectations refer to it."""

    position: int
    """Length of the timeline when it began."""
    start: float
    """Trio time."""
    end: float
    """Trio time."""

    def of(self, anchor: kinds.Anchor) -> float:
        """Trio time that times count from."""
        return self.start if anchor == "start" else self.end


class _Failed(Exception):
    """What was expected is not so."""


class _Unchecked(Exception):
    """There is no telling."""


@attrs.frozen(kw_only=True)
class Judge:
    """Looks at everything that is known of a conversation."""

    timeline: Timeline
    device: FirmwareDevice
    voice: Voice
    engines: ScenarioEngines | None
    """None where the server has engines of its own."""
    tolerance: float = 0.0
    """Seconds that real time adds to limits."""

    async def verdict(self, expectation: Any, moment: Moment) -> Verdict:
        """Wait for what is expected from a moment on, and tell whether it came."""
        text = described(expectation)
        try:
            await self._check(expectation, moment)
        except _Failed as failure:
            return Verdict(text, Outcome.FAILED, str(failure))
        except _Unchecked as reason:
            return Verdict(text, Outcome.UNCHECKED, str(reason))
        return Verdict(text, Outcome.HELD)

    @singledispatchmethod
    async def _check(self, expectation: Any, moment: Moment) -> None:  # noqa: ARG002 - of others
        raise TypeError(f"no expectation: {expectation!r}")

    @_check.register
    async def _event(self, expected: kinds.ExpectEvent, moment: Moment) -> None:
        anchor = moment.of(expected.since)
        patience = PATIENCE_SECONDS
        if expected.within_ms is not None:
            patience = expected.within_ms / 1000 + self.tolerance + _LATE_SECONDS
        event = await self.happened(
            expected.event, moment.position, count=expected.count, until=anchor + patience
        )
        if event is None:
            raise _Failed(f"it did not happen; since then: {self._kinds_since(moment.position)}")
        after_ms = round((event.at - anchor) * 1000, 1)
        slack_ms = self.tolerance * 1000
        if expected.within_ms is not None and after_ms > expected.within_ms + slack_ms:
            raise _Failed(f"it happened after {after_ms:g} ms")
        if expected.not_before_ms is not None and after_ms < expected.not_before_ms - slack_ms:
            raise _Failed(f"it happened after {after_ms:g} ms already")
        if expected.text is not None:
            if expected.event != "stt":
                self._needs_own_engines("what is said depends on the server's engines")
            if not self.same(event.text, expected.text):
                raise _Failed(f"its text is {event.text!r}")

    @_check.register
    async def _absent(self, expected: kinds.ExpectAbsent, moment: Moment) -> None:
        until = moment.of(expected.since) + expected.for_ms / 1000
        with trio.move_on_at(until):
            await self.timeline.wait_until(lambda: bool(self._unwanted(expected, moment, until)))
        unwanted = self._unwanted(expected, moment, until)
        if unwanted:
            after_ms = round((unwanted[0].at - moment.of(expected.since)) * 1000, 1)
            raise _Failed(f"it happened after {after_ms:g} ms: {unwanted[0].text!r}")

    def _unwanted(
        self, expected: kinds.ExpectAbsent, moment: Moment, until: float
    ) -> Sequence[Happening]:
        since = moment.of(expected.since)
        return [
            event
            for event in self.timeline.since(moment.position, expected.absent)
            if since <= event.at <= until
            and (expected.text is None or self.same(event.text, expected.text))
        ]

    @_check.register
    async def _order(self, expected: kinds.ExpectOrder, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        rest = list(expected.order)
        for event in self.timeline.happenings[moment.position :]:
            if rest and event.kind == rest[0]:
                rest.pop(0)
        if rest:
            raise _Failed(f"no {rest[0]!r} in its place: {self._kinds_since(moment.position)}")

    @_check.register
    async def _times(self, expected: kinds.ExpectTimes, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        times = len(list(self.timeline.since(moment.position, expected.of)))
        if times != expected.times:
            raise _Failed(f"it happened {times} times")

    @_check.register
    async def _heard(self, expected: kinds.ExpectHeard, moment: Moment) -> None:
        self._needs_own_engines("what is said depends on the server's engines")
        played = self.device.loudspeaker.played
        heard = await self.voice.understand(
            sound_of([frame for frame in played if frame.end > moment.start])
        )
        as_expected = {
            "whole": heard == expected.heard,
            "begins": heard.startswith(expected.heard),
            "ends": heard.endswith(expected.heard),
            "contains": expected.heard in heard,
            "lacks": expected.heard not in heard,
        }
        if not as_expected[expected.match]:
            raise _Failed(f"heard was {heard!r}")

    @_check.register
    async def _state(self, expected: kinds.ExpectState, moment: Moment) -> None:  # noqa: ARG002 - now
        await trio.sleep(_ACTING_SECONDS)
        with trio.move_on_after(_SETTLING_SECONDS):
            await self.timeline.wait_until(lambda: self.device.state.value == expected.state)
        if self.device.state.value != expected.state:
            raise _Failed(f"it is {self.device.state.value}")

    @_check.register
    async def _gap(self, expected: kinds.ExpectGap, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        played = [f for f in self.device.loudspeaker.played if f.end > moment.start]
        stops = [event.at for event in self.timeline.since(0, "tts stop")]
        gaps = [
            (later.at - earlier.end) * 1000
            for earlier, later in pairwise(played)
            if later.at - earlier.end < _REPLY_GAP_SECONDS
            and not any(earlier.end <= stop <= later.at for stop in stops)
        ]
        longest = max(gaps, default=0.0)
        if longest > expected.longest_gap_ms + self.tolerance * 1000:
            raise _Failed(f"there was one of {longest:.0f} ms")

    @_check.register
    async def _history(self, expected: kinds.ExpectHistory, moment: Moment) -> None:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        engines = self._needs_own_engines("a foreign server does not show its history")
        shown = engines.llm.dialogues[-1] if engines.llm.dialogues else []
        lines = [f"{message.role}: {message.content}" for message in shown[1:]]
        same = len(lines) == len(expected.history) and all(map(self.same, lines, expected.history))
        if not same:
            raise _Failed(f"it was {lines}")

    @_check.register
    async def _asked(self, expected: kinds.ExpectAsked, moment: Moment) -> None:
        await trio.lowlevel.checkpoint()
        self._needs_own_engines("a foreign server does not show what its engines do")
        for name, times in expected.asked.items():
            asked = len(list(self.timeline.since(moment.position, f"asked {name}")))
            if asked != times:
                raise _Failed(f"{name} was asked {asked} times")

    def _needs_own_engines(self, reason: str) -> ScenarioEngines:
        if self.engines is None:
            raise _Unchecked(reason)
        return self.engines

    async def happened(
        self, kind: str, position: int, *, text: str | None = None, count: int = 1, until: float
    ) -> Happening | None:
        """The `count`-th of a kind from a position on, as soon as it happens; None at `until`."""

        def found() -> list[Happening]:
            events = self.timeline.since(position, kind)
            return [each for each in events if text is None or self.same(each.text, text)]

        with trio.move_on_at(until):
            await self.timeline.wait_until(lambda: len(found()) >= count)
        events = found()
        return events[count - 1] if len(events) >= count else None

    def same(self, text: str, expected: str) -> bool:
        """Whether a text is the expected one, as far as the voice lets one tell."""
        if expected.endswith("…"):
            return text.startswith(expected[:-1])
        if self.voice.is_exact:
            return text == expected
        return SequenceMatcher(None, text.casefold(), expected.casefold()).ratio() >= _ALIKE

    def _kinds_since(self, position: int) -> str:
        seen: list[str] = []
        for event in self.timeline.happenings[position:]:
            if not seen or seen[-1] != event.kind:
                seen.append(event.kind)
        return ", ".join(seen) or "nothing"


def described(expectation: Any) -> str:
    """An expectation as its file has it, without what was left at its default."""
    defaults = attrs.fields_dict(type(expectation))
    values = attrs.asdict(expectation)
    told = (
        f"{name} = {value!r}" for name, value in values.items() if value != defaults[name].default
    )
    return ", ".join(told)
