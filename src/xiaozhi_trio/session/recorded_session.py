"""The files of one recorded session, written batch by batch. For a worker thread."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import orjson

from xiaozhi_trio.audio.ogg_opus import RATE, OggOpusWriter, packet_samples
from xiaozhi_trio.audio.opus import OpusError
from xiaozhi_trio.session.negotiation import framing
from xiaozhi_trio.store.recording_format import (
    AUDIO_FILES,
    HEADING_FILE,
    LINES_FILE,
    Binary,
    Ended,
    Heading,
    LeftOut,
    Line,
    Message,
    Packet,
    Side,
    Stopped,
    Text,
    heading_json,
    line_json,
)
from xiaozhi_trio.store.recordings import RecordingFull, SessionFolder
from xiaozhi_trio.telemetry.redaction import HIDDEN, Redactor, is_secret_field
from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.json_depth import is_too_deep
from xiaozhi_trio.wire.messages import Hello, decode
from xiaozhi_trio.wire.violation import ProtocolViolation

_GAP_SAMPLES: Final = RATE // 4
"""A packet that is later than this was preceded by silence; less is the network's jitter."""
_FIRST_SERIAL: Final = secrets.randbits(31)


@attrs.frozen
class Passed:
    """One WebSocket message as it was received or sent."""

    at: float
    """Seconds from the start of the session."""
    side: Side
    payload: str | bytes


Entry: TypeAlias = Passed | LeftOut | Ended


class RecordedSession:
    """One recording while it is written. `end` it, or at least `close` it."""

    def __init__(self, folder: SessionFolder, heading: Heading) -> None:
        """Writes the heading. Raises `RecordingFull`, OSError."""
        self._folder = folder
        self._binary_version = heading.protocol_version
        self._greeted = False
        self._rates: dict[Side, int] = {"device": 16_000, "server": 24_000}
        self._tracks: dict[Side, OggOpusWriter] = {}
        self._redactor = Redactor()
        self._at = 0.0
        folder.append(HEADING_FILE, heading_json(heading))

    def write(self, entries: Iterable[Entry]) -> None:
        """Add what has passed; all of it is with the system when this returns.

        Raises `RecordingFull` after a last line that says so, and OSError.
        """
        lines = b"".join(line_json(self._line(entry)) for entry in entries)
        try:
            # Audio first: a line must not name a packet that is not there.
            for side, track in self._tracks.items():
                self._folder.append(AUDIO_FILES[side], track.take_pages(everything=True))
            self._folder.append(LINES_FILE, lines)
        except RecordingFull as full:
            stopped = line_json(Stopped(at=self._at, reason=str(full)))
            self._folder.append(LINES_FILE, stopped, is_last=True)
            raise

    def end(self, entries: Iterable[Entry]) -> None:
        """Add the last that passed and close the files. Raises like `write`."""
        try:
            self.write(entries)
            for side, track in self._tracks.items():
                self._folder.append(AUDIO_FILES[side], track.end(), is_last=True)
        finally:
            self.close()

    def close(self) -> None:
        """Close the files as they are. Raises OSError."""
        self._folder.close()

    def _line(self, entry: Entry) -> Line:
        self._at = entry.at
        if not isinstance(entry, Passed):
            return entry
        if isinstance(entry.payload, str):
            return self._text(entry, entry.payload)
        try:
            frame = binary.unpack(entry.payload, self._binary_version)
            if isinstance(frame, binary.AudioFrame):
                return self._packet(entry, frame)
        except (ProtocolViolation, OpusError):
            # Kept as it came: it may be what the recording is made for.
            pass
        # Whatever it is, this spelling of its bytes loses none of them.
        text = self._redactor.redact(entry.payload.decode("latin-1"))
        raw = base64.b64encode(text.encode("latin-1")).decode("ascii")
        return Binary(at=entry.at, side=entry.side, base64=raw)

    def _packet(self, entry: Passed, frame: binary.AudioFrame) -> Packet:
        samples = packet_samples(frame.packet)
        track = self._tracks.get(entry.side)
        if track is None:
            serial = (_FIRST_SERIAL + len(self._tracks)) & 0x7FFF_FFFF
            track = OggOpusWriter(serial=serial, input_rate=self._rates[entry.side])
            self._tracks[entry.side] = track
        start = int(entry.at * RATE) - samples
        if start - track.position > _GAP_SAMPLES:
            track.pad(start, like=frame.packet)
        number = track.add(frame.packet)
        return Packet(at=entry.at, side=entry.side, number=number, timestamp=frame.timestamp)

    def _text(self, entry: Passed, text: str) -> Line:
        body = None
        if not is_too_deep(text):
            try:
                body = orjson.loads(text)
            except orjson.JSONDecodeError:
                # What is no JSON is recorded as text.
                body = None
        if not isinstance(body, dict):
            return Text(at=entry.at, side=entry.side, text=self._redactor.redact(text))
        if body.get("type") == "hello":
            self._learn(entry.side, text)
        return Message(at=entry.at, side=entry.side, body=_without_secrets(body))

    def _learn(self, side: Side, text: str) -> None:
        """What the hellos say of the audio that follows."""
        try:
            hello = decode(text)
        except ProtocolViolation:
            return
        if isinstance(hello, Hello):
            self._rates[side] = min(max(hello.audio_params.sample_rate, 0), 192_000)
            if side == "device" and not self._greeted:
                self._greeted = True
                self._binary_version = framing(hello, self._binary_version)


def _without_secrets(value: Any) -> Any:
    """The same JSON with what its names call secret hidden, as in the log."""
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret_field(name, member) else _without_secrets(member)
            for name, member in value.items()
        }
    return [_without_secrets(member) for member in value] if isinstance(value, list) else value
