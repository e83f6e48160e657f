"""The device's own view of its conversation, from what it sent and received alone."""

from __future__ import annotations

import attrs
from transcript import Entry, HungUp, Received, Recognition, Sent

from xiaozhi_trio.config.settings import Settings


@attrs.define
class Scene:
    """As it was before the entry, or after the step, that a check is shown."""

    settings: Settings
    uplink_ms: int
    """Length of the packets that the device sends, and the longest it takes."""
    began_at: float = 0.0
    leaves_echo: bool = False
    """`features.aec`: a voice alone does not interrupt, for it may be the loudspeaker's."""
    greeted: bool = False
    leaving: bool = False
    """Its end is certain, and waits at most for what cannot be stopped."""
    over: bool = False
    mode: str | None = None
    """Of the last `listen start`."""
    speaking: bool = False
    """Between `tts start` and `tts stop`."""
    opened_at: float = 0.0
    """When the last `tts start` came."""
    packets: int = 0
    """Of audio since then."""
    plays_until: float = 0.0
    """When a loudspeaker that plays all packets at once, in a row, will fall silent."""
    suspended: bool = False
    """A voice has interrupted a speech, which goes on if it turns out to be noise."""
    answered: bool = False
    """What was asked was shown, and `tts start` may have been taken back on its way."""
    aborted: bool = False
    """Since the last `tts start`."""
    listened_at: float = -1.0
    """When it was last in realtime mode; messages of one breath may pass each other."""
    heard_meanwhile: bool = False
    """In realtime mode since the last `tts start`, and perhaps understood only later."""
    disturbed_at: float = -1.0
    """When the device, or the operator, last did something."""
    stalled: bool = False
    """The network stalled since the last `tts start`: what the device sees has no clock."""

    @property
    def downlink_ms(self) -> int:
        """What the server must send: the shorter of both sides' packets."""
        return min(self.uplink_ms, self.settings.audio.frame_ms)

    @property
    def hears_while_speaking(self) -> bool:
        return self.mode == "realtime"

    def ends_by_itself(self, at: float) -> bool:
        """Whether a `tts stop` that comes now can only be the natural end of a speech."""
        calm = at > self.disturbed_at and not self.stalled
        # What is heard meanwhile may interrupt it later, once it is understood.
        heard = self.hears_while_speaking or self.heard_meanwhile
        return self.speaking and calm and not heard

    def played_until(self, at: float) -> float:
        """`plays_until` with one more packet that comes at `at`."""
        return max(self.plays_until, at) + self.downlink_ms / 1000

    def take(self, entry: Entry) -> None:
        """Live through one entry."""
        match entry:
            case Sent(at, kind, detail):
                self.disturbed_at = at
                if kind == "listen":
                    self.mode = detail
                if self.mode == "realtime":
                    self.listened_at = at
                if kind == "abort":
                    self.aborted = True
                if kind == "abort" or detail == "manual":
                    self.suspended = False
                if kind in {"hang up", "drain", "bad hello"}:
                    self.leaving = True
            case Recognition() if self.hears_while_speaking:
                self.heard_meanwhile = True
            case HungUp():
                self.over = True
            case Received(at, event):
                match event.kind:
                    case "hello":
                        self.greeted = True
                    case "stt":
                        self.answered = True
                    case "tts start":
                        self.speaking = True
                        self.answered = False
                        self.aborted = self.suspended = self.heard_meanwhile = False
                        self.opened_at = self.plays_until = at
                        self.packets = 0
                    case "tts stop":
                        heard = self.hears_while_speaking or at <= self.listened_at
                        may_go_on = (self.speaking or self.answered) and not self.aborted
                        self.suspended = may_go_on and (heard or self.stalled)
                        self.speaking = self.answered = False
                    case "audio":
                        self.packets += 1
                        self.plays_until = self.played_until(at)
