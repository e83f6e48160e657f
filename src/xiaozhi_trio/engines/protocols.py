"""What a session asks of a speech or language model.

PCM is always signed 16-bit little-endian mono, as `bytes`. Every method may be
cancelled at any await and leaves the engine usable by the next caller.
Failures are `xiaozhi_trio.engines.errors.EngineError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

LISTENING_RATE = 16_000
"""Hz; the rate of everything a recogniser or detector is given."""

LOWEST_SPEECH_RATE = 8_000
HIGHEST_SPEECH_RATE = 192_000
"""Hz; speech of a rate outside of these is taken for garbage."""


@runtime_checkable
class Engine(Protocol):
    """What every engine has, whatever it does."""

    @property
    def name(self) -> str:
        """The name it is configured by, used in logs, traces and errors."""

    async def load(self) -> None:
        """Make the engine ready to serve: load and warm up, or check the remote end's settings.

        Called once per process. Raises `EngineError` where it cannot be made ready.
        """

    async def aclose(self) -> None:
        """Let go of everything `load` took hold of."""


@runtime_checkable
class Queued(Protocol):
    """An engine whose callers wait for each other, as those of an embedded model do."""

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""


@runtime_checkable
class Attributed(Protocol):
    """An answer that tells who gave it: a `Transcript`, or the stream of a chain of engines."""

    @property
    def engine(self) -> str:
        """The engine's name in the configuration; empty where the one that was asked did."""


def engine_of(answer: object, asked: Engine) -> str:
    """The name of the engine that gave an answer, where `asked` was asked for it."""
    told = answer.engine if isinstance(answer, Attributed) else ""
    return told or asked.name


@runtime_checkable
class VoiceActivityStream(Protocol):
    """The detector's memory of one microphone."""

    @property
    def window_samples(self) -> int:
        """Samples at `LISTENING_RATE` that one probability stands for."""

    async def accept(self, pcm: bytes) -> Sequence[float]:
        """Take any amount of PCM; give one voice probability (0 to 1) per window completed by it.

        What does not fill a window is kept for the next call.
        """

    def reset(self) -> None:
        """Forget all audio so far."""


@runtime_checkable
class VoiceActivityDetector(Engine, Protocol):
    def open_stream(self) -> VoiceActivityStream:
        """A stream for one microphone. Cheap; streams do not influence each other."""


@attrs.frozen
class Transcript:
    """What was said."""

    text: str
    """Empty where the engine heard no words."""
    language: str | None = None
    """ISO 639-1 code (`zh`, `en`), where the engine knows it."""
    engine: str = ""
    """Who recognised it, where that was one of several."""


@runtime_checkable
class SpeechRecognizer(Engine, Protocol):
    async def transcribe(self, pcm: bytes) -> Transcript:
        """Recognise one utterance, PCM at `LISTENING_RATE`."""


@runtime_checkable
class RecognitionStream(Protocol):
    """One utterance on its way to a recogniser. Used by one task."""

    @property
    def says_ended(self) -> bool:
        """The engine takes the end of what it was given for the end of what is said.

        Always false for an engine that does not judge it.
        """

    async def accept(self, pcm: bytes) -> None:
        """Take the next audio, PCM of any length at `LISTENING_RATE`."""

    async def transcript(self) -> Transcript:
        """What was said so far; more audio may follow."""


@runtime_checkable
class StreamingRecognizer(SpeechRecognizer, Protocol):
    """A recogniser that can also take audio while somebody speaks.

    An option: `transcribe` is what it is asked where a stream is lost.
    """

    def open_stream(self) -> AbstractAsyncContextManager[RecognitionStream]:
        """A stream for one utterance; leaving the block lets go of it, at any time."""


@attrs.frozen
class ToolSpec:
    """A function that the language model may ask for."""

    name: str
    """Of 1 to 64 ASCII letters, digits, `_` and `-`, as OpenAI's interface demands."""
    description: str
    parameters: Mapping[str, object] = attrs.field(repr=False)
    """JSON Schema of its arguments, of type "object"."""


@attrs.frozen
class ToolCall:
    """The language model asks for a function."""

    id: str
    """Tells apart the calls of one dialogue; the result is given under it."""
    name: str
    arguments: str = attrs.field(repr=False)
    """As the model wrote them: a JSON object, where it made no mistake."""


@attrs.frozen
class ChatMessage:
    """One message of the dialogue as the language model sees it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    """Of a tool, its result."""
    calls: tuple[ToolCall, ...] = ()
    """What the assistant asked for after these words; a message for each result follows."""
    call_id: str = ""
    """Of a tool: the call that it answers."""


@runtime_checkable
class LanguageModel(Engine, Protocol):
    def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = ()
    ) -> AbstractAsyncContextManager[AsyncIterator[str | ToolCall]]:
        """Stream the reply to `messages`, piece by piece as it is generated.

        A context manager, so that leaving the block, also by cancellation or an
        error, ends the generation before the block is left. A model that cannot call
        `tools` ignores them, and takes in calls and results of others in the dialogue.
        """


@attrs.frozen
class PcmChunk:
    """A piece of synthesised speech."""

    pcm: bytes
    """Whole samples."""
    sample_rate: int
    """Hz, from `LOWEST_SPEECH_RATE` to `HIGHEST_SPEECH_RATE`."""


@runtime_checkable
class SpeechSynthesizer(Engine, Protocol):
    def synthesize(self, sentence: str) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
        """Speak one sentence, chunk by chunk as it is made.

        A context manager for the reason given at `LanguageModel.reply`. All chunks
        of one sentence have the same rate. A sentence with nothing to pronounce
        gives no chunk.
        """


@runtime_checkable
class VisionModel(Engine, Protocol):
    async def describe(self, image: bytes, question: str) -> str:
        """Answer `question` about an encoded image (JPEG or PNG)."""
