"""Engines for scenarios: they understand and speak tone speech, and fail where they are told to.

All of them run on Trio's clock and without threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import LISTENING_RATE, PcmChunk, ToolCall, Transcript
from xiaozhi_trio.testing.engines import LoudnessDetector
from xiaozhi_trio.testing.tone_speech import speech, transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from xiaozhi_trio.engines.protocols import ChatMessage, ToolSpec
    from xiaozhi_trio.testing.timeline import Timeline

_SPEECH_RATE: Final = 24_000
_TOKEN: Final = re.compile(r"\s*(?:[\u3040-\u9fff\uac00-\ud7a3]|[^\s\u3040-\u9fff\uac00-\ud7a3]+)")

_NO_FUNCTION: Final = re.compile(r"[^a-zA-Z0-9_-]")


@attrs.frozen(kw_only=True)
class Mishaps:
    """Calls that go wrong; they are counted from 1."""

    fails_at: tuple[int, ...] = ()
    hangs_at: tuple[int, ...] = ()
    """These never give anything."""
    always_fails: bool = False
    error: str = "unavailable"
    """Category of the failure, as `EngineErrorCategory` has them."""
    retryable: bool = False
    load_ms: int = 0
    fails_to_load: bool = False


@attrs.frozen(kw_only=True)
class RecognizerScript(Mishaps):
    """How recognition goes."""

    delay_ms: int = 50
    phantom: str = ""
    """What it makes of noise; recognisers invent words where there are none."""


@attrs.frozen(kw_only=True)
class Call:
    """A tool that the language model asks for."""

    tool: str
    """As the device or the server calls it."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Answer:
    """What the language model says to something."""

    to: str = ""
    """Part of the user's last message, in any case; empty for whatever is said."""
    say: str
    calls: tuple[Call, ...] = ()
    """What it asks for after it has said that."""
    then: str = ""
    """What it says when it is told what came of it; `{result}` is the result of the last call."""
    fails_after: int | None = None
    """Tokens after which it fails."""
    hangs_after: int | None = None
    """Tokens after which nothing more comes."""


@attrs.frozen(kw_only=True)
class LanguageModelScript(Mishaps):
    """How thinking goes."""

    first_token_ms: int = 50
    tokens_per_second: float = 40.0
    """A token is a word, or a character where words are not written apart."""
    answers: tuple[Answer, ...] = (Answer(say="Fine, thank you."),)
    """The first that fits counts."""


@attrs.frozen(kw_only=True)
class SynthesizerScript(Mishaps):
    """How speaking goes."""

    delay_ms: int = 50
    chunk_ms: int = 0
    """Audio in one piece; 0 gives each sentence in one."""
    fails_on: str = ""
    """A part of the sentences that it cannot speak."""
    hangs_on: str = ""
    """A part of the sentences on which nothing comes."""


@attrs.frozen(kw_only=True)
class EnginesScript:
    """The engines of a scenario."""

    asr: RecognizerScript = attrs.field(factory=RecognizerScript)
    llm: LanguageModelScript = attrs.field(factory=LanguageModelScript)
    tts: SynthesizerScript = attrs.field(factory=SynthesizerScript)
    llm_fallback: LanguageModelScript | None = None
    tts_fallback: SynthesizerScript | None = None
    stock: bool = False
    """The server's own phrases are made before anybody calls."""

    @property
    def calls_tools(self) -> bool:
        """The language model is told which tools to call."""
        models = (self.llm, self.llm_fallback)
        return any(answer.calls for llm in models if llm is not None for answer in llm.answers)

    @property
    def goes_wrong(self) -> bool:
        """They do more than to answer as any good engine would."""
        return attrs.evolve(self, llm=attrs.evolve(self.llm, answers=())) != EnginesScript(
            llm=LanguageModelScript(answers=())
        )


@attrs.frozen(kw_only=True)
class ScenarioEngines:
    """The engines themselves."""

    vad: LoudnessDetector
    asr: ToneRecognizer
    llm: ToldLanguageModel
    tts: ToneSynthesizer
    llm_fallback: ToldLanguageModel | None
    tts_fallback: ToneSynthesizer | None
    shutdown: trio.Event = attrs.field(factory=trio.Event)
    """Set where the scenario stops the server that they belong to."""

    @classmethod
    def of(cls, script: EnginesScript, timeline: Timeline) -> ScenarioEngines:
        """Engines that do what the script says and note on the timeline what they are asked."""
        on_call = timeline.engine
        return cls(
            vad=LoudnessDetector(),
            asr=ToneRecognizer("asr", script.asr, on_call),
            llm=ToldLanguageModel("llm", script.llm, on_call),
            tts=ToneSynthesizer("tts", script.tts, on_call),
            llm_fallback=None
            if script.llm_fallback is None
            else ToldLanguageModel("llm fallback", script.llm_fallback, on_call),
            tts_fallback=None
            if script.tts_fallback is None
            else ToneSynthesizer("tts fallback", script.tts_fallback, on_call),
        )


class _Scripted:
    """An engine's life, and the mishaps of its calls."""

    def __init__(self, name: str, mishaps: Mishaps, on_call: Callable[[str, str], None]) -> None:
        self._name = name
        self._mishaps = mishaps
        self._on_call = on_call
        self.calls = 0
        """How often it was asked."""

    @property
    def name(self) -> str:
        """What it is called in the log and on the timeline."""
        return self._name

    async def load(self) -> None:
        """Take the scripted time, then fail if so scripted."""
        await trio.sleep(self._mishaps.load_ms / 1000)
        if self._mishaps.fails_to_load:
            raise self._failure("scripted to fail to load")

    async def aclose(self) -> None:
        """There is nothing to let go of."""
        await trio.lowlevel.checkpoint()

    def _failure(self, reason: str) -> EngineError:
        category = EngineErrorCategory(self._mishaps.error)
        return EngineError(
            reason,
            engine=self._name,
            category=category,
            retryable=self._mishaps.retryable,
        )

    def _count(self, asked: str) -> int:
        self.calls += 1
        self._on_call(self._name, asked)
        return self.calls

    async def _meet_mishaps(self, call: int) -> None:
        if call in self._mishaps.hangs_at:
            await trio.sleep_forever()
        if self._mishaps.always_fails or call in self._mishaps.fails_at:
            raise self._failure(f"scripted to fail at call {call}")


class ToneRecognizer(_Scripted):
    """Understands tone speech."""

    def __init__(
        self, name: str, script: RecognizerScript, on_call: Callable[[str, str], None]
    ) -> None:
        super().__init__(name, script, on_call)
        self._script = script

    async def transcribe(self, pcm: bytes) -> Transcript:
        """What was said, after the scripted time."""
        text = transcript(pcm) or self._script.phantom
        call = self._count(f"{len(pcm) * 500 // LISTENING_RATE} ms: {text!r}")
        await trio.sleep(self._script.delay_ms / 1000)
        await self._meet_mishaps(call)
        return Transcript(text)


class ToldLanguageModel(_Scripted):
    """Says what it was told to say."""

    def __init__(
        self, name: str, script: LanguageModelScript, on_call: Callable[[str, str], None]
    ) -> None:
        super().__init__(name, script, on_call)
        self._script = script
        self.dialogues: list[Sequence[ChatMessage]] = []
        """Every dialogue it was shown."""

    @asynccontextmanager
    async def reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[AsyncIterator[str | ToolCall]]:
        """The answer, token by token, then its calls."""
        self.dialogues.append(list(messages))
        question = next((m.content for m in reversed(messages) if m.role == "user"), "")
        is_told = messages[-1].role == "tool"
        result = messages[-1].content if is_told else None
        names = [tool.name for tool in tools]
        tokens = self._pieces(question, result, names, self._count(result or question))
        try:
            yield tokens
        finally:
            await tokens.aclose()

    async def _pieces(
        self, question: str, result: str | None, names: Sequence[str], number: int
    ) -> AsyncGenerator[str | ToolCall, None]:
        await trio.sleep(self._script.first_token_ms / 1000)
        await self._meet_mishaps(number)
        answer = self._answer(question)
        if answer is None:
            return
        if result is not None:
            answer = attrs.evolve(answer, say=answer.then.replace("{result}", result), calls=())
        async with aclosing(self._tokens(answer)) as tokens:
            async for token in tokens:
                yield token
        for at, call in enumerate(answer.calls):
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
            yield ToolCall(f"call_{number}_{at}", _offered(call.tool, names), arguments)

    async def _tokens(self, answer: Answer) -> AsyncGenerator[str, None]:
        tokens = _TOKEN.findall(answer.say)
        for number, token in enumerate([*tokens, ""]):
            if number == answer.hangs_after:
                await trio.sleep_forever()
            if number == answer.fails_after:
                raise self._failure(f"scripted to fail after {number} tokens")
            if number < len(tokens):
                if number:
                    await trio.sleep(1 / self._script.tokens_per_second)
                yield token

    def _answer(self, question: str) -> Answer | None:
        said = question.casefold()
        fits = (answer for answer in self._script.answers if answer.to.casefold() in said)
        return next(fits, None)


def _offered(tool: str, names: Sequence[str]) -> str:
    """The name under which the language model knows a tool: not every name may be a function's."""
    plain = _NO_FUNCTION.sub("_", tool)
    return tool if tool in names else plain


class ToneSynthesizer(_Scripted):
    """Speaks tone speech."""

    def __init__(
        self, name: str, script: SynthesizerScript, on_call: Callable[[str, str], None]
    ) -> None:
        super().__init__(name, script, on_call)
        self._script = script

    @asynccontextmanager
    async def synthesize(self, sentence: str) -> AsyncIterator[AsyncIterator[PcmChunk]]:
        """Speak the sentence."""
        chunks = self._chunks(sentence, self._count(sentence))
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def _chunks(self, sentence: str, call: int) -> AsyncGenerator[PcmChunk, None]:
        script = self._script
        await trio.sleep(script.delay_ms / 1000)
        await self._meet_mishaps(call)
        if script.hangs_on and script.hangs_on in sentence:
            await trio.sleep_forever()
        if script.fails_on and script.fails_on in sentence:
            raise self._failure(f"scripted to fail on {script.fails_on!r}")
        pcm = speech(sentence, _SPEECH_RATE)
        size = _SPEECH_RATE * script.chunk_ms // 1000 * 2 or max(len(pcm), 1)
        for start in range(0, len(pcm), size):
            yield PcmChunk(pcm[start : start + size], _SPEECH_RATE)
