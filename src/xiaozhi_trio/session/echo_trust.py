"""Whether a voice that is heard while we speak is somebody's, or our own out of the loudspeaker.

A device in realtime mode takes its own echo out of what it hears, or so it says. Some do
not, or only after a while, and then each reply would interrupt itself: it falls silent at
its own first syllables, and with it the evidence, for a snippet of 200 ms is no words
that could be told for its own. So one false interruption that nobody's words explain is
enough to doubt: from then on what is heard does not silence the reply, which goes on
while its words are looked at. An interruption of other words than ours still ends it,
half a second later than a voice would. Our own words in it settle the matter for the
session. A cough settles nothing: after so much of our speech in which the microphone
heard no voice, the device is trusted again.
"""

from __future__ import annotations

from typing import Final

import attrs

PROBATION_MS: Final = 5_000
"""Of our speech, without any voice in the microphone, that a doubted device is acquitted by.

One that hears itself lets such a stretch pass only where it hears itself hardly ever.
"""


@attrs.define
class EchoTrust:
    """What is believed of one device's microphone."""

    cancels: bool
    """It says that it takes out its echo, and was not found out."""
    _is_doubted: bool = False
    _since_ms: int | None = None
    """On the microphone's clock: since when it heard us speak and no voice."""
    _quiet_ms: int = 0

    @property
    def is_doubted(self) -> bool:
        """A reply has fallen silent at something that nobody has said."""
        return self._is_doubted

    def fell_silent_for_nothing(self) -> None:
        """A reply did, at a sound without words or at our own words."""
        self._is_doubted = True
        self._quiet_ms, self._since_ms = 0, None

    def heard_us(self) -> None:
        """Words of ours came out of the microphone."""
        self.cancels = False
        self.fell_silent_for_nothing()

    def listens(self, at_ms: int, *, we_speak: bool, voice: bool) -> None:
        """The microphone's clock stands at `at_ms`; do we speak, and does it hear a voice?"""
        if not self._is_doubted:
            return
        if not we_speak:
            self._since_ms = None
            return
        if voice:
            self._quiet_ms = 0
        elif self._since_ms is not None:
            self._quiet_ms += at_ms - self._since_ms
        self._since_ms = at_ms
        if self._quiet_ms >= PROBATION_MS:
            self._is_doubted = False
