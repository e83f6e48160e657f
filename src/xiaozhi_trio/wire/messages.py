"""The JSON messages of the xiaozhi protocol, as attrs classes tagged by `type`.

What devices send is structured strictly (a number in quotes is not a number) and
unknown members are ignored; what is not one of the known messages raises
`ProtocolViolation` with the reason, and the session goes on. The server's own
messages carry only what some client reads.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn
from cattrs.preconf.orjson import make_converter

from xiaozhi_trio.wire.emotion import EMOJI, Emotion
from xiaozhi_trio.wire.json_depth import MAX_JSON_DEPTH, is_too_deep
from xiaozhi_trio.wire.violation import ProtocolViolation

OPUS_RATES: Final = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Hz; the rates an Opus codec runs at."""
FRAME_DURATIONS: Final = (5, 10, 20, 40, 60, 80, 100, 120)
"""ms; the packet lengths that the firmware's decoder opens with (`audio_service.h`)."""

HELLO_MALFORMED: Final = "hello_malformed"
"""The reason of the `ProtocolViolation` for a hello whose members cannot be taken."""

_MAX_DETECT_CHARACTERS: Final = 4000


class ListenMode(enum.Enum):
    """Who decides that the user has finished."""

    AUTO = "auto"
    """The server; the microphone is closed while it speaks."""
    MANUAL = "manual"
    """The user, by releasing a button."""
    REALTIME = "realtime"
    """The server; the microphone stays open, so the device cancels its own echo."""


@attrs.frozen
class AudioParams:
    """One direction's audio. The defaults are what a client means that sends none."""

    format: str = "opus"
    sample_rate: int = 16_000
    """Hz."""
    channels: int = 1
    frame_duration: int = 60
    """Length of one packet, ms."""


@attrs.frozen
class Features:
    """What a client says it can do."""

    mcp: bool = False
    aec: bool = False
    """The firmware leaves echo cancellation to the server (CONFIG_USE_SERVER_AEC)."""
    emoji: bool = True
    """False where the client does not want `llm` messages (the browser test page)."""
    consistent_sample_rate: bool = False
    """The client wants to be answered at the rate it sends (xiaozhi-sdk)."""


@attrs.frozen
class Hello:
    """The first message of a client."""

    version: int | None = None
    """Binary framing, as in the `Protocol-Version` header."""
    transport: str = "websocket"
    features: Features = Features()
    audio_params: AudioParams = AudioParams()
    """What the client sends, and for most clients also the longest packet it can play."""


@attrs.frozen
class ListenStart:
    """The microphone opens."""

    mode: ListenMode = ListenMode.AUTO


@attrs.frozen
class ListenStop:
    """The microphone closed: the user released the button."""


@attrs.frozen
class ListenDetect:
    """A wake word was heard, or the user typed something."""

    text: str = ""


@attrs.frozen
class Abort:
    """The user wants silence."""

    reason: str = ""


@attrs.frozen
class McpFromDevice:
    """A JSON-RPC message of the device's MCP server."""

    payload: object


@attrs.frozen
class Other:
    """A message of another type, known to some server but not acted on by this one."""

    type: str


ClientMessage: TypeAlias = (
    Hello | ListenStart | ListenStop | ListenDetect | Abort | McpFromDevice | Other
)

T = TypeVar("T")


def _exactly(kind: type[T]) -> Any:
    def structure(value: object, _: type[T]) -> T:
        if type(value) is not kind:
            raise TypeError(f"{type(value).__name__} where {kind.__name__} was expected")
        return value

    return structure


def _from_object(kind: type[T]) -> Any:
    """Structure a JSON object; a member that is null counts as absent."""
    structure_members = make_dict_structure_fn(kind, _CONVERTER)

    def structure(value: object, _: type[T]) -> T:
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__} where an object was expected")
        present = {key: member for key, member in value.items() if member is not None}
        return structure_members(present, kind)

    return structure


_CONVERTER: Final = make_converter()
for _kind in (int, str, bool):
    _CONVERTER.register_structure_hook(_kind, _exactly(_kind))
_CONVERTER.register_structure_hook_factory(attrs.has, _from_object)


def _structure(body: dict[str, Any], kind: type[T]) -> T:
    try:
        return _CONVERTER.structure(body, kind)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        problems = "; ".join(cattrs.transform_error(error))
        raise ProtocolViolation("message_malformed", problems) from error


def _hello(body: dict[str, Any]) -> Hello:
    try:
        return _structure(body, Hello)
    except ProtocolViolation as violation:
        # Nothing can go on without it, so it is told apart from other messages.
        raise ProtocolViolation(HELLO_MALFORMED, violation.args[0]) from violation


def _listen(body: dict[str, Any]) -> ClientMessage:
    match body.get("state"):
        case "start":
            return _structure(body, ListenStart)
        case "stop":
            return ListenStop()
        case "detect":
            detect = _structure(body, ListenDetect)
            if len(detect.text) > _MAX_DETECT_CHARACTERS:
                raise ProtocolViolation(
                    "text_too_long",
                    f"listen detect with {len(detect.text)} characters, "
                    f"at most {_MAX_DETECT_CHARACTERS} are taken",
                )
            return detect
    raise ProtocolViolation(
        "listen_state_unknown", "listen without a state of start, stop or detect"
    )


def decode(text: str | bytes) -> ClientMessage:
    """The message in a text frame. Raises `ProtocolViolation` and nothing else."""
    # Latin-1 keeps brackets and quotes where they are.
    if is_too_deep(text if isinstance(text, str) else text.decode("latin-1")):
        raise ProtocolViolation("json_too_deep", f"nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolViolation("json_malformed", str(error)) from error
    if not isinstance(body, dict):
        raise ProtocolViolation("json_not_object", f"JSON {type(body).__name__}, expected object")
    kind = body.get("type")
    if not isinstance(kind, str):
        raise ProtocolViolation("type_missing", "message without a string `type`")
    match kind:
        case "hello":
            return _hello(body)
        case "listen":
            return _listen(body)
        case "abort":
            return _structure(body, Abort)
        case "mcp":
            return McpFromDevice(body.get("payload"))
    return Other(kind[:40])


@attrs.frozen
class ServerHello:
    """The answer to hello; `audio_params` is the server's own speech."""

    audio_params: AudioParams
    FIXED: ClassVar = {"type": "hello", "version": 1, "transport": "websocket"}


@attrs.frozen
class Stt:
    """What the server understood; the device shows it."""

    text: str
    FIXED: ClassVar = {"type": "stt"}


@attrs.frozen
class TtsStart:
    """Speech begins: the device clears its queue and starts to play."""

    FIXED: ClassVar = {"type": "tts", "state": "start"}


@attrs.frozen
class TtsSentenceStart:
    """The subtitle of the audio that follows."""

    text: str
    FIXED: ClassVar = {"type": "tts", "state": "sentence_start"}


@attrs.frozen
class TtsStop:
    """Speech is over: the device listens again."""

    FIXED: ClassVar = {"type": "tts", "state": "stop"}


@attrs.frozen
class LlmEmotion:
    """The face the device shows."""

    emotion: Emotion
    FIXED: ClassVar = {"type": "llm"}


@attrs.frozen
class McpToDevice:
    """A JSON-RPC message for the device's MCP server."""

    payload: dict[str, Any]
    FIXED: ClassVar = {"type": "mcp"}


@attrs.frozen
class Alert:
    """A banner on the device; all three strings must be there or it is ignored."""

    status: str
    message: str
    emotion: Emotion = Emotion.SAD
    FIXED: ClassVar = {"type": "alert"}


ServerMessage: TypeAlias = (
    ServerHello | Stt | TtsStart | TtsSentenceStart | TtsStop | LlmEmotion | McpToDevice | Alert
)


def encode(message: ServerMessage, session_id: str) -> str:
    """The text frame of a server message."""
    body = {**message.FIXED, **_CONVERTER.unstructure(message), "session_id": session_id}
    if isinstance(message, LlmEmotion):
        body["text"] = EMOJI[message.emotion]
    return orjson.dumps(body).decode()
