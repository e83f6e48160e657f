"""What a recording of a session consists of: its files and the lines of its messages.

    handshake.json   who connected to what (`Heading`)
    messages.jsonl   everything that passed, in order, one `Line` each
    uplink.ogg       the Opus packets of the device
    downlink.ogg     those of the server

The audio files run from the start of the session, with silence where nothing was
said, and are for ears. What came when is in the lines: each `Packet` names its
packet in the audio file of its side, counted from 0 behind the headers.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import attrs
import cattrs
import orjson
from cattrs.preconf.orjson import make_converter
from cattrs.strategies import configure_tagged_union

HEADING_FILE: Final = "handshake.json"
LINES_FILE: Final = "messages.jsonl"
AUDIO_FILES: Final = {"device": "uplink.ogg", "server": "downlink.ogg"}
FILES: Final = frozenset({HEADING_FILE, LINES_FILE, *AUDIO_FILES.values()})

Side: TypeAlias = Literal["device", "server"]
"""Who sent it."""


@attrs.frozen(kw_only=True)
class Heading:
    """How the session began. Holds no token."""

    began: str
    """ISO 8601, UTC."""
    unix: float
    """The same as Unix time, s."""
    server: str
    """Name and version."""
    session: str
    device: str
    client: str = ""
    protocol_version: int = 1
    """Binary framing of the handshake; a hello may name another."""
    host: str = ""
    from_browser: bool = False
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = attrs.field(factory=dict)
    """The sections that shape a conversation, secrets hidden."""


@attrs.frozen(kw_only=True)
class Message:
    """A JSON object. What its name calls a secret is `***`."""

    at: float
    """Seconds from the start of the session, as of all lines."""
    side: Side
    body: dict[str, Any]


@attrs.frozen(kw_only=True)
class Text:
    """A text message that is no JSON object."""

    at: float
    side: Side
    text: str


@attrs.frozen(kw_only=True)
class Packet:
    """An Opus packet."""

    at: float
    side: Side
    number: int
    """Of the packets in the audio file of its side."""
    timestamp: int = 0
    """That of the framing, where it carries one, ms."""


@attrs.frozen(kw_only=True)
class Binary:
    """A binary message that holds no Opus packet: an empty one (DTX), text, or a malformed one.

    What looks like a secret in it is `***`.
    """

    at: float
    side: Side
    base64: str


@attrs.frozen(kw_only=True)
class LeftOut:
    """Messages before the next line that the disk was too slow for."""

    at: float
    device: int
    server: int


@attrs.frozen(kw_only=True)
class Stopped:
    """Nothing more was recorded though the session went on."""

    at: float
    reason: str


@attrs.frozen(kw_only=True)
class Ended:
    """The connection is over. Missing where the server's process ended first."""

    at: float
    reason: str
    """As in the log: `peer_gone` where the device left."""
    code: int


Line: TypeAlias = Message | Text | Packet | Binary | LeftOut | Stopped | Ended

_NAMES: Final[dict[type[Any], str]] = {
    Message: "message",
    Text: "text",
    Packet: "packet",
    Binary: "binary",
    LeftOut: "left_out",
    Stopped: "stopped",
    Ended: "ended",
}


class LineMalformed(ValueError):
    """A line or a heading is not of this format; the text says why."""


_CONVERTER: Final = make_converter(omit_if_default=True)
configure_tagged_union(Line, _CONVERTER, tag_name="kind", tag_generator=_NAMES.__getitem__)


def line_json(line: Line) -> bytes:
    """One line of `messages.jsonl` with its end."""
    return _CONVERTER.dumps(line, unstructure_as=Line) + b"\n"


def heading_json(heading: Heading) -> bytes:
    """The content of `handshake.json`."""
    return _CONVERTER.dumps(heading) + b"\n"


def parse_line(text: bytes) -> Line:
    """The reverse of `line_json`. Raises `LineMalformed`."""
    line: Line = _parse(text, Line)
    return line


def parse_heading(text: bytes) -> Heading:
    """The reverse of `heading_json`. Raises `LineMalformed`."""
    heading: Heading = _parse(text, Heading)
    return heading


def _parse(text: bytes, kind: Any) -> Any:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise LineMalformed(f"no JSON: {error}") from error
    if not isinstance(body, dict):
        raise LineMalformed(f"JSON {type(body).__name__}, expected object")
    if kind is Line and body.get("kind") not in _NAMES.values():
        raise LineMalformed(
            f"no kind, or one of another version; known: {', '.join(_NAMES.values())}"
        )
    try:
        return _CONVERTER.structure(body, kind)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise LineMalformed("; ".join(cattrs.transform_error(error))) from error
