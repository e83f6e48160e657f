"""A recording as a conversation: what the device did, and what the server said to it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from xiaozhi_trio.audio.ogg_opus import RATE, OggError, packet_samples, read_packets
from xiaozhi_trio.audio.opus import OpusError
from xiaozhi_trio.store.recording_format import (
    AUDIO_FILES,
    HEADING_FILE,
    LINES_FILE,
    Binary,
    Ended,
    Heading,
    LeftOut,
    Line,
    LineMalformed,
    Message,
    Packet,
    Side,
    Stopped,
    Text,
    parse_heading,
    parse_line,
)
from xiaozhi_trio.wire.binary import AudioFrame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

AUDIO: Final = "audio"
HUNG_UP: Final = "hung up"
_OF_THE_PROCESS: Final = frozenset({"server_shutdown", "cut_short", "internal_error"})
"""Ends that came from the server's process and not from what was said."""
_SHOWN_TEXT: Final = ("text", "message", "emotion")


class RecordingUnreadable(Exception):
    """The folder is no recording, or damaged; the text names the file."""


@attrs.frozen
class Happening:
    """Something that passed, in either direction."""

    at: float
    """Seconds from the start of the connection."""
    side: Side
    kind: str
    """`stt`, `tts start`, `mcp tools/list`, …; `AUDIO` for a packet, `HUNG_UP` at the end."""
    text: str = ""
    """What was shown or understood; of `HUNG_UP`, the close code."""
    ms: float = 0.0
    """How long a packet plays."""


@attrs.frozen
class Step:
    """Something the device does."""

    at: float
    payload: str | dict[str, Any] | bytes | AudioFrame
    """Text, JSON, raw bytes, or a packet to be framed."""
    after: tuple[str, ...] = ()
    """What the server had said before that the device may have waited for, with repeats."""


@attrs.frozen(kw_only=True)
class RecordedConversation:
    """One recording."""

    heading: Heading
    steps: Sequence[Step]
    happenings: Sequence[Happening]
    timestamps: Sequence[int]
    """Of the server's packets, in order."""
    ends_at: float
    notes: Sequence[str]
    """What the recording lacks."""

    @property
    def server_hung_up(self) -> bool:
        """Whether the server ended it, by what was said or not said."""
        return any(happening.kind == HUNG_UP for happening in self.happenings)


def happening_of(at: float, side: Side, body: Mapping[str, Any]) -> Happening:
    """What a JSON message is."""
    kind = str(body.get("type", "no type"))
    if kind == "mcp":
        payload = body.get("payload")
        method = payload.get("method", "answer") if isinstance(payload, dict) else "malformed"
        return Happening(at, side, f"mcp {method}")
    if isinstance(state := body.get("state"), str):
        kind = f"{kind} {state}"
    texts = (body.get(name) for name in _SHOWN_TEXT)
    return Happening(at, side, kind, " ".join(text for text in texts if isinstance(text, str)))


def packet_ms(packet: bytes) -> float:
    """How long a packet plays, 0 where it is none."""
    try:
        return packet_samples(packet) * 1000 / RATE
    except OpusError:
        return 0.0


def read_recording(folder: Path) -> RecordedConversation:
    """Read a recording, also one whose server was killed. Raises `RecordingUnreadable`."""
    try:
        heading = parse_heading((folder / HEADING_FILE).read_bytes())
        written = (folder / LINES_FILE).read_bytes()
    except OSError as error:
        raise RecordingUnreadable(
            f"{folder} is no recording of a session ({error}); give one of the folders that "
            "`xiaozhi-trio serve --record` makes"
        ) from error
    except LineMalformed as error:
        raise RecordingUnreadable(f"{folder / HEADING_FILE}: {error}") from error
    # What follows the last line end was being written when the process ended.
    complete = written[: written.rfind(b"\n") + 1]
    lines = []
    for number, text in enumerate(complete.splitlines(), start=1):
        try:
            lines.append(parse_line(text))
        except LineMalformed as error:
            raise RecordingUnreadable(f"{folder / LINES_FILE}:{number}: {error}") from error
    return _Reading(heading, _audio_of(folder, lines)).conversation(lines)


def _audio_of(folder: Path, lines: Iterable[Line]) -> dict[Side, list[bytes]]:
    audio: dict[Side, list[bytes]] = {}
    for side in sorted({line.side for line in lines if isinstance(line, Packet)}):
        file = folder / AUDIO_FILES[side]
        try:
            audio[side] = read_packets(file.read_bytes())
        except (OSError, OggError) as error:
            raise RecordingUnreadable(f"{file}: {error}") from error
    return audio


class _Reading:
    def __init__(self, heading: Heading, audio: Mapping[Side, list[bytes]]) -> None:
        self._heading = heading
        self._audio = audio
        self._steps: list[Step] = []
        self._happenings: list[Happening] = []
        self._timestamps: list[int] = []
        self._notes: list[str] = []
        self._awaited: list[str] = []
        self._lost = 0
        self._ended = False

    def conversation(self, lines: Sequence[Line]) -> RecordedConversation:
        for line in lines:
            self._take(line)
        if self._lost:
            self._notes.append(f"{self._lost} packets are missing from the audio files")
        if not self._ended:
            self._notes.append("the recording has no end")
        return RecordedConversation(
            heading=self._heading,
            steps=self._steps,
            happenings=self._happenings,
            timestamps=self._timestamps,
            ends_at=lines[-1].at if lines else 0.0,
            notes=self._notes,
        )

    def _take(self, line: Line) -> None:
        match line:
            case Message(at=at, side=side, body=body):
                self._message(at, side, body)
            case Text(at=at, side=side, text=text):
                self._pass(at, side, "text", text)
            case Packet(at=at, side=side, number=number, timestamp=timestamp):
                self._packet(at, side, number, timestamp)
            case Binary(at=at, side=side):
                try:
                    self._pass(at, side, "binary", base64.b64decode(line.base64, validate=True))
                except binascii.Error as error:
                    raise RecordingUnreadable(f"at {at:g} s: base64: {error}") from error
            case LeftOut(at=at, device=device, server=server):
                self._notes.append(
                    f"{device} messages of the device and {server} of the server are left out "
                    f"before {at:g} s"
                )
            case Stopped(at=at, reason=reason):
                self._ended = True
                self._notes.append(f"recorded until {at:g} s only: {reason}")
            case Ended(at=at, reason=reason, code=code):
                self._ended = True
                if reason not in _OF_THE_PROCESS and reason != "peer_gone":
                    self._happenings.append(Happening(at, "server", HUNG_UP, str(code)))

    def _message(self, at: float, side: Side, body: dict[str, Any]) -> None:
        happening = happening_of(at, side, body)
        self._happenings.append(happening)
        if side == "device":
            self._steps.append(Step(at, body, tuple(self._awaited)))
        elif is_awaited(happening.kind):
            self._awaited.append(happening.kind)

    def _pass(self, at: float, side: Side, kind: str, payload: str | bytes) -> None:
        self._happenings.append(Happening(at, side, kind))
        if side == "device":
            self._steps.append(Step(at, payload))

    def _packet(self, at: float, side: Side, number: int, timestamp: int) -> None:
        packets = self._audio[side]
        if not 0 <= number < len(packets):
            self._lost += 1
            return
        packet = packets[number]
        self._happenings.append(Happening(at, side, AUDIO, ms=packet_ms(packet)))
        if side == "device":
            self._steps.append(Step(at, AudioFrame(packet, timestamp)))
        else:
            self._timestamps.append(timestamp)


def is_awaited(kind: str) -> bool:
    """Whether devices wait for a message of this kind before they go on."""
    return kind in {"hello", "tts start", "tts stop"} or (
        kind.startswith("mcp ") and kind != "mcp answer"
    )
