"""What every kind of engine says and raises under a name that is not its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.named import under_name
from xiaozhi_trio.engines.protocols import (
    ChatMessage,
    LanguageModel,
    PcmChunk,
    Queued,
    SpeechRecognizer,
    SpeechSynthesizer,
    StreamingRecognizer,
    Transcript,
    VisionModel,
    VoiceActivityDetector,
)
from xiaozhi_trio.engines.streaming import recognition_stream, streaming_recognizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


def failure(engine: str = "parrot") -> EngineError:
    return EngineError("it hurts", engine=engine, category=Category.QUOTA, retryable=True)


@attrs.define(eq=False)
class Parrot:
    """An engine of each kind; with `error` it raises that, wherever it can."""

    error: EngineError | None = None
    done: list[object] = attrs.field(factory=list)
    name: str = "parrot"

    def _do(self, what: object) -> None:
        self.done.append(what)
        if self.error is not None:
            raise self.error.copy()

    async def load(self) -> None:
        self._do("load")

    async def aclose(self) -> None:
        self._do("aclose")

    async def transcribe(self, pcm: bytes) -> Transcript:
        self._do(pcm)
        return Transcript("hello")

    async def describe(self, image: bytes, question: str) -> str:
        self._do((image, question))
        return "a parrot"

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[ChatMessage], tools: Sequence[object] = ()
    ) -> AsyncIterator[AsyncIterator[Any]]:
        self.done.append((messages, tools))
        yield self._pieces("hel", "lo")
        self.done.append("left")

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[Any]]:
        self._do(sentence)
        yield self._pieces(PcmChunk(b"\0\0", 16_000))

    async def _pieces(self, *pieces: object) -> AsyncIterator[Any]:
        for piece in pieces:
            yield piece
        if self.error is not None:
            raise self.error.copy()


@attrs.define(eq=False)
class Listener:
    """A stream of audio, of a detector and of a recogniser."""

    parrot: Parrot
    window_samples: int = 512

    async def accept(self, pcm: bytes) -> Sequence[float]:
        self.parrot._do(pcm)
        return [0.5]

    def reset(self) -> None:
        self.parrot._do("reset")

    @property
    def says_ended(self) -> bool:
        self.parrot._do("says_ended")
        return True

    async def transcript(self) -> Transcript:
        self.parrot._do("transcript")
        return Transcript("so far")


class Detector(Parrot):
    def open_stream(self) -> Listener:
        return Listener(self)


class Streaming(Parrot):
    @asynccontextmanager
    async def open_stream(self) -> AsyncIterator[Listener]:
        yield Listener(self)
        self.done.append("left")


class Busy(Parrot):
    is_busy = True


MESSAGES = (ChatMessage("user", "hello"),)


@pytest.mark.parametrize(
    ("engine", "protocol"),
    [
        (Detector(), VoiceActivityDetector),
        (Parrot(), SpeechRecognizer),
        (Parrot(), LanguageModel),
        (Parrot(), SpeechSynthesizer),
        (Parrot(), VisionModel),
    ],
)
def test_each_kind_keeps_its_methods(engine: Parrot, protocol: type) -> None:
    named = under_name("nas", engine, protocol)
    assert isinstance(named, protocol)
    assert named.name == "nas"


async def test_loading_and_closing_are_passed_on() -> None:
    parrot = Parrot()
    named = under_name("nas", parrot, LanguageModel)
    await named.load()
    await named.aclose()
    assert parrot.done == ["load", "aclose"]


@pytest.mark.parametrize(("engine", "busy"), [(Busy(), True), (Parrot(), False)])
def test_a_queue_is_that_of_the_engine(engine: Parrot, busy: bool) -> None:
    named = under_name("nas", engine, LanguageModel)
    assert isinstance(named, Queued)
    assert named.is_busy is busy


async def test_a_recogniser() -> None:
    parrot = Parrot()
    named = under_name("nas", parrot, SpeechRecognizer)
    assert await named.transcribe(b"pcm") == Transcript("hello")
    assert parrot.done == [b"pcm"]
    assert streaming_recognizer(named) is None


async def test_a_recogniser_that_streams() -> None:
    parrot = Streaming()
    named = under_name("nas", parrot, SpeechRecognizer)
    assert await named.transcribe(b"pcm") == Transcript("hello")
    recognizer = streaming_recognizer(named)
    assert isinstance(recognizer, StreamingRecognizer)
    async with recognition_stream(recognizer) as stream:
        await stream.accept(b"more")
        assert stream.says_ended
        assert await stream.transcript() == Transcript("so far", engine="nas")
    assert parrot.done == [b"pcm", b"more", "says_ended", "transcript", "left"]


async def test_a_detector() -> None:
    parrot = Detector()
    stream = under_name("nas", parrot, VoiceActivityDetector).open_stream()
    assert stream.window_samples == 512
    assert await stream.accept(b"pcm") == [0.5]
    stream.reset()
    assert parrot.done == [b"pcm", "reset"]


async def test_answers_in_pieces() -> None:
    parrot = Parrot()
    async with under_name("nas", parrot, LanguageModel).reply(MESSAGES, ("tool",)) as pieces:
        assert [piece async for piece in pieces] == ["hel", "lo"]
    assert parrot.done == [(MESSAGES, ("tool",)), "left"]
    async with under_name("nas", parrot, SpeechSynthesizer).synthesize("Hi.") as chunks:
        assert [chunk async for chunk in chunks] == [PcmChunk(b"\0\0", 16_000)]


async def test_a_vision_model() -> None:
    named = under_name("nas", Parrot(), VisionModel)
    assert await named.describe(b"jpeg", "what?") == "a parrot"


async def _transcribe(engine: Parrot) -> None:
    await under_name("nas", engine, SpeechRecognizer).transcribe(b"")


async def _load(engine: Parrot) -> None:
    await under_name("nas", engine, SpeechRecognizer).load()


async def _aclose(engine: Parrot) -> None:
    await under_name("nas", engine, SpeechRecognizer).aclose()


async def _describe(engine: Parrot) -> None:
    await under_name("nas", engine, VisionModel).describe(b"", "")


async def _synthesize(engine: Parrot) -> None:
    async with under_name("nas", engine, SpeechSynthesizer).synthesize("Hi."):
        pytest.fail("it fails at once")


async def _detect(engine: Parrot) -> None:
    await under_name("nas", engine, VoiceActivityDetector).open_stream().accept(b"")


async def _reset(engine: Parrot) -> None:
    under_name("nas", engine, VoiceActivityDetector).open_stream().reset()


@pytest.mark.parametrize(
    "use", [_transcribe, _load, _aclose, _describe, _synthesize, _detect, _reset]
)
async def test_its_errors_have_the_configured_name(use: Callable[[Parrot], Any]) -> None:
    with pytest.raises(EngineError) as caught:
        await use(Detector(failure()))
    assert caught.value.retryable
    assert str(caught.value) == "nas: it hurts (quota)"


async def test_an_answer_that_breaks_off_tells_who_it_was_of_before_it_is_left() -> None:
    async with under_name("nas", Parrot(failure()), LanguageModel).reply(MESSAGES) as pieces:
        assert await anext(pieces) == "hel"
        assert await anext(pieces) == "lo"
        with pytest.raises(EngineError) as caught:
            await anext(pieces)
        assert caught.value.engine == "nas"


async def test_the_errors_of_a_stream() -> None:
    engine = under_name("nas", Streaming(failure()), SpeechRecognizer)
    async with engine.open_stream() as stream:
        with pytest.raises(EngineError, match=r"^nas: "):
            await stream.accept(b"")
    async with engine.open_stream() as stream:
        with pytest.raises(EngineError, match=r"^nas: "):
            await stream.transcript()
    async with engine.open_stream() as stream:
        with pytest.raises(EngineError, match=r"^nas: "):
            _ = stream.says_ended


async def test_the_errors_of_engines_within_it_keep_their_names() -> None:
    with pytest.raises(EngineError) as caught:
        await under_name("nas", Parrot(failure("macaw")), LanguageModel).load()
    assert caught.value.engine == "macaw"
