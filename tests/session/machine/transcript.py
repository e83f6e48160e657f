"""What happened between a device and a session, in order, as an observer on the wire saw it.

To it belong the engines' beginnings, which tell what a turn was about, but nothing of
the session's own state.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from xiaozhi_trio.engines.protocols import ChatMessage
from xiaozhi_trio.testing import Event
from xiaozhi_trio.wire.closing import Closing


@attrs.frozen
class Sent:
    """The device did something."""

    at: float
    kind: str
    """`hello`, `listen`, `stop`, `detect`, `abort`, `audio`, `nonsense`, `answer` (of its MCP
    server), `hang up`; `drain` is the server's doing."""
    detail: str = ""
    """The mode of `listen`, the text of `detect`, what `nonsense` or `audio` it was."""
    ms: float = 0.0
    """Of audio, at most."""


@attrs.frozen
class Received:
    """The server said something."""

    at: float
    event: Event


@attrs.frozen
class Recognition:
    """A recogniser was given an utterance."""

    at: float
    pcm: bytes


@attrs.frozen
class Understanding:
    """It gave a text for it, in time."""

    at: float
    text: str


@attrs.frozen
class Dialogue:
    """A language model was asked."""

    at: float
    messages: tuple[ChatMessage, ...]


@attrs.frozen
class Saying:
    """A synthesizer was given a sentence."""

    at: float
    sentence: str


@attrs.frozen
class Sound:
    """It gave a piece of speech."""

    at: float
    ms: float


@attrs.frozen
class Trouble:
    """The recogniser or the language model fails a turn that waits for it."""

    at: float
    stage: str


@attrs.frozen
class HungUp:
    """The session is over."""

    at: float
    closing: Closing | None


Entry: TypeAlias = (
    Sent | Received | Recognition | Understanding | Dialogue | Saying | Sound | Trouble | HungUp
)


@attrs.define
class Step:
    """What one rule brought about, from one silence to the next."""

    began: float
    now: float
    entries: list[Entry]
    generating: int
    """Language models at work."""
    recognising: int
    """Recognisers at work."""
    speaking: int
    """Synthesizers at work."""
    unstoppable: int
    """Engines among them that do not end when they are cancelled."""
    unsent: int
    """Messages and packets in the outbox, at most."""
    network_stalled: bool
    """The network took nothing for a part of the step."""
    detector_fails: bool

    @property
    def sent(self) -> list[Sent]:
        return [entry for entry in self.entries if isinstance(entry, Sent)]

    @property
    def received(self) -> list[Event]:
        return [entry.event for entry in self.entries if isinstance(entry, Received)]

    @property
    def kinds(self) -> list[str]:
        """Of what was received, audio as it came."""
        return [event.kind for event in self.received]

    @property
    def is_instant(self) -> bool:
        """No time passed."""
        return self.now == self.began

    @property
    def recognitions(self) -> list[Recognition]:
        return [entry for entry in self.entries if isinstance(entry, Recognition)]

    def is_only(self, kind: str) -> bool:
        """The device did this one thing, and at once there was silence again."""
        return self.is_instant and [sent.kind for sent in self.sent] == [kind]
