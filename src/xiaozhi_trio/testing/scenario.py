"""Scenarios: what somebody says and does to a device, and what is expected of the answer.

A scenario is a TOML file; `scenario_file.py` reads it into these classes, whose
attributes are its keys. Times are milliseconds. docs/scenarios.md tells how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import attrs

from xiaozhi_trio.testing.firmware_device import DeviceProfile
from xiaozhi_trio.testing.scenario_engines import EnginesScript

Anchor: TypeAlias = Literal["start", "end"]
"""What times count from: when a step began or when it ended. What is said ends with its
last sound."""


@attrs.frozen(kw_only=True)
class ExpectEvent:
    """Something happens on the server's or the device's side."""

    event: str
    """A kind of `Happening`."""
    text: str | None = None
    """What it says; up to an ellipsis at the end, where there is one."""
    within_ms: int | None = None
    not_before_ms: int | None = None
    since: Anchor = "end"
    count: int = 1
    """Which of them, from the step on."""


@attrs.frozen(kw_only=True)
class ExpectAbsent:
    """Something does not happen; at the end of a file: has not happened at all."""

    absent: str
    text: str | None = None
    """Only such with this text count."""
    for_ms: int = 1000
    since: Anchor = "end"


@attrs.frozen(kw_only=True)
class ExpectOrder:
    """These happen in this order, with others between them."""

    order: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ExpectTimes:
    """Something has happened so often."""

    times: int
    of: str


@attrs.frozen(kw_only=True)
class ExpectHeard:
    """What a listener understood of what the loudspeaker really played."""

    heard: str
    match: Literal["whole", "begins", "ends", "contains", "lacks"] = "whole"


@attrs.frozen(kw_only=True)
class ExpectState:
    """The device is in this state."""

    state: Literal["idle", "connecting", "listening", "speaking"]


@attrs.frozen(kw_only=True)
class ExpectGap:
    """No silence inside the replies was longer."""

    longest_gap_ms: int


@attrs.frozen(kw_only=True)
class ExpectHistory:
    """The dialogue that the language model was shown last, without the prompt.

    Each line begins with `user: ` or `assistant: ` and may end in an ellipsis.
    """

    history: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ExpectAsked:
    """How often engines (`asr`, `llm`, `tts`, `llm fallback`, `tts fallback`) were asked."""

    asked: Mapping[str, int]


Expectation: TypeAlias = (
    ExpectEvent
    | ExpectAbsent
    | ExpectOrder
    | ExpectTimes
    | ExpectHeard
    | ExpectState
    | ExpectGap
    | ExpectHistory
    | ExpectAsked
)


@attrs.frozen(kw_only=True)
class Step:
    """Something a person or a device does."""

    expect: tuple[Expectation, ...] = ()
    """What has to follow before the next step."""


@attrs.frozen(kw_only=True)
class Say(Step):
    """Say something, by default as soon as the device listens."""

    say: tuple[str | int, ...]
    """Texts, with the pauses between them."""
    when: Literal["listening", "now"] = "listening"
    level: int = 9000
    """Highest amplitude."""
    wait: bool = True
    """Whether the next step comes after the last sound, or at once."""


@attrs.frozen(kw_only=True)
class Sound(Step):
    """A noise in the room."""

    sound: Literal["white", "pink", "hum", "clicks", "cough", "coughs", "door"]
    """As in `noises.py`."""
    for_ms: int = 300
    level_db: float = -20.0
    """RMS, relative to full scale."""
    wait: bool = True


@attrs.frozen(kw_only=True)
class Wait(Step):
    """Let time pass."""

    wait_ms: int


@attrs.frozen(kw_only=True)
class WaitFor(Step):
    """Wait for something to happen from now on."""

    wait_for: str
    text: str | None = None
    count: int = 1
    patience_ms: int = 30_000


@attrs.frozen(kw_only=True)
class Press(Step):
    """Press the button, or hold the talk button down."""

    press: Literal["button", "talk"]


@attrs.frozen(kw_only=True)
class Release(Step):
    """Let the talk button go."""

    release: Literal["talk"]


@attrs.frozen(kw_only=True)
class Wake(Step):
    """Call the device; `wake` is what sounds and goes ahead of any `listen`."""

    wake: str


@attrs.frozen(kw_only=True)
class Type(Step):
    """Type something, as people do in desktop clients."""

    type: str


@attrs.frozen(kw_only=True)
class Connect(Step):
    """Open the channel and say hello only."""

    connect: Literal[True]


@attrs.frozen(kw_only=True)
class Disconnect(Step):
    """Drop off the network."""

    disconnect: Literal["fin", "rst"]


@attrs.frozen(kw_only=True)
class Network(Step):
    """What the server sends is held up on its way, or comes again, all of it at once."""

    network: Literal["stalls", "flows"]


@attrs.frozen(kw_only=True)
class Stop(Step):
    """Tell the server to stop, as its operator does."""

    server: Literal["stops"]


@attrs.frozen(kw_only=True)
class Send(Step):
    """Send a JSON message, behind the device's back."""

    send: Mapping[str, Any]
    times: int = 1


@attrs.frozen(kw_only=True)
class SendText(Step):
    """Send a text message that need not be JSON."""

    send_text: str
    times: int = 1


@attrs.frozen(kw_only=True)
class SendBytes(Step):
    """Send a binary message."""

    send_hex: str
    times: int = 1


RuleName: TypeAlias = Literal["pairing", "audio", "gap", "overflow", "reset", "hello", "corrupt"]
"""What holds in every scenario; see `rules.py`."""


@attrs.frozen(kw_only=True)
class Scenario:
    """One conversation."""

    name: str
    description: str = ""
    device: DeviceProfile = attrs.field(factory=DeviceProfile)
    server: Mapping[str, Any] = attrs.field(factory=dict)
    """Tables as in config.toml."""
    engines: EnginesScript = attrs.field(factory=EnginesScript)
    steps: tuple[Step, ...]
    expect: tuple[Expectation, ...] = ()
    """What has to be true at the end."""
    breaks: tuple[RuleName, ...] = ()
    """Rules that this conversation cannot keep."""

    @property
    def stops_server(self) -> bool:
        """It needs a server that may be stopped."""
        return any(isinstance(step, Stop) for step in self.steps)
