"""Settings of the engines: which one serves each kind, and the built-in ones' own.

A table named after an engine that is not built in (`[asr.my-engine]`) is kept as
it stands in the file and handed to the entry point that provides the engine. One that
says `engine` itself is another of that engine, under the table's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from xiaozhi_trio.config.setting import setting


@attrs.frozen(kw_only=True)
class SileroSettings:
    """Silero voice activity detection, embedded."""


@attrs.frozen(kw_only=True)
class WhisperSettings:
    """Whisper speech recognition, embedded (CTranslate2 on the CPU)."""

    model: str = setting("whisper-base", why="Model of the catalogue.")
    workers: int = setting(
        2, minimum=1, maximum=64, why="Utterances recognised at once, one core each."
    )
    languages: tuple[str, ...] = setting(
        ("zh", "en"), why="Languages expected; the likeliest of them is taken. Empty is any."
    )
    queue: int = setting(
        16, minimum=1, maximum=1000, why="Utterances that may wait; further ones fail as busy."
    )


@attrs.frozen(kw_only=True)
class OpenAiRecognizerSettings:
    """Speech recognition by any server with OpenAI's /audio/transcriptions."""

    base_url: str = setting("https://api.openai.com/v1", why="Address up to and with /v1.")
    api_key: str = setting("", secret=True, why="Key sent as a bearer token; empty sends none.")
    model: str = setting("whisper-1", why="Model name the server knows.")
    language: str = setting("", why="ISO 639-1 code given as a hint; empty lets the server detect.")
    prompt: str = setting("", why="Words the recogniser should expect, such as names.")
    timeout_seconds: float = setting(
        20.0, unit="s", minimum=0.5, maximum=600, why="Longest wait for the whole answer."
    )


@attrs.frozen(kw_only=True)
class LlamaSettings:
    """A GGUF language model, embedded (llama.cpp on the CPU)."""

    model: str = setting(
        "qwen2.5-0.5b", why="Model of the catalogue; qwen2.5-1.5b is better, slower."
    )
    threads: int = setting(0, minimum=0, maximum=256, why="Threads; 0 is one per core.")
    context_tokens: int = setting(
        4096, unit="tokens", minimum=512, maximum=131_072, why="Longest dialogue it can take in."
    )
    max_tokens: int = setting(
        256, unit="tokens", minimum=16, maximum=8192, why="Longest reply it may generate."
    )
    temperature: float = setting(0.4, minimum=0, maximum=2, why="0 is always the likeliest word.")
    queue: int = setting(
        8, minimum=1, maximum=1000, why="Replies that may wait; further ones fail as busy."
    )


@attrs.frozen(kw_only=True)
class OpenAiLanguageModelSettings:
    """A language model behind any server with OpenAI's /chat/completions."""

    base_url: str = setting("https://api.openai.com/v1", why="Address up to and with /v1.")
    api_key: str = setting("", secret=True, why="Key sent as a bearer token; empty sends none.")
    model: str = setting("gpt-4o-mini", why="Model name the server knows.")
    temperature: float = setting(0.7, minimum=0, maximum=2, why="0 is always the likeliest word.")
    max_tokens: int = setting(
        512, unit="tokens", minimum=1, maximum=100_000, why="Longest reply it may generate."
    )
    timeout_seconds: float = setting(
        30.0, unit="s", minimum=0.5, maximum=600, why="Longest wait for the next piece."
    )
    extra: Mapping[str, Any] = setting(
        factory=dict, why="Further members of the request, such as switches to turn thinking off."
    )


@attrs.frozen(kw_only=True)
class BilingualSettings:
    """One synthesizer for Mandarin and one for English, chosen sentence by sentence."""

    chinese: str = setting("kokoro", why="Engine that speaks sentences with Chinese characters.")
    english: str = setting("hibari", why="Engine that speaks all others.")


@attrs.frozen(kw_only=True)
class KokoroSettings:
    """Kokoro speech synthesis, embedded (ONNX on the CPU), Mandarin and English."""

    voice_zh: str = setting("zf_xiaoxiao", why="Voice of Mandarin sentences.")
    voice_en: str = setting("af_heart", why="Voice of English sentences.")
    speed: float = setting(1.0, minimum=0.5, maximum=2, why="Speaking rate.")
    threads: int = setting(0, minimum=0, maximum=256, why="Threads; 0 is one per core.")
    queue: int = setting(
        16, minimum=1, maximum=1000, why="Sentences that may wait; further ones fail as busy."
    )


@attrs.frozen(kw_only=True)
class HibariSettings:
    """hibari speech synthesis, embedded, English, a few milliseconds a sentence."""

    queue: int = setting(
        32, minimum=1, maximum=1000, why="Sentences that may wait; further ones fail as busy."
    )


@attrs.frozen(kw_only=True)
class OpenAiSynthesizerSettings:
    """Speech synthesis by any server with OpenAI's /audio/speech."""

    base_url: str = setting("https://api.openai.com/v1", why="Address up to and with /v1.")
    api_key: str = setting("", secret=True, why="Key sent as a bearer token; empty sends none.")
    model: str = setting("tts-1", why="Model name the server knows.")
    voice: str = setting("alloy", why="Voice name the server knows.")
    format: str = setting(
        "pcm",
        choices=("pcm", "wav", "mp3", "opus"),
        why="Audio format asked for; all are streamed.",
    )
    pcm_sample_rate: int = setting(
        24_000, unit="Hz", minimum=8000, maximum=48_000, why="Rate of format pcm, which tells none."
    )
    speed: float = setting(1.0, minimum=0.25, maximum=4, why="Speaking rate.")
    timeout_seconds: float = setting(
        20.0, unit="s", minimum=0.5, maximum=600, why="Longest wait for the next piece."
    )


@attrs.frozen(kw_only=True)
class NamedEngine:
    """An engine under a name of its own: `[llm.cloud]` with `engine = "openai"` in it."""

    engine: str
    """A built-in or an installed one."""
    settings: Any = attrs.field(repr=False)
    """An instance of the built-in engine's class, or the installed one's table as it stands."""


_NOTHING_MORE: Mapping[str, Any] = {}
_NONE_NAMED: Mapping[str, NamedEngine] = {}


@attrs.frozen(kw_only=True)
class VoiceActivitySettings:
    """Voice activity detection."""

    engine: str = setting("silero", why="Engine that tells voice from noise: silero.")
    silero: SileroSettings = attrs.field(factory=SileroSettings)
    named: Mapping[str, NamedEngine] = attrs.field(default=_NONE_NAMED)
    others: Mapping[str, Any] = attrs.field(default=_NOTHING_MORE, repr=False)


@attrs.frozen(kw_only=True)
class RecognizerSettings:
    """Speech recognition."""

    engine: str = setting("whisper", why="Engine that recognises speech: whisper or openai.")
    fallback: tuple[str, ...] = setting(
        (), why="Engines that are asked, in this order, where that one fails or is slow."
    )
    first_answer_seconds: float = setting(
        4.0,
        unit="s",
        minimum=0.2,
        maximum=120,
        why="Longest wait for the transcript before the next engine is asked.",
    )
    whisper: WhisperSettings = attrs.field(factory=WhisperSettings)
    openai: OpenAiRecognizerSettings = attrs.field(factory=OpenAiRecognizerSettings)
    named: Mapping[str, NamedEngine] = attrs.field(default=_NONE_NAMED)
    others: Mapping[str, Any] = attrs.field(default=_NOTHING_MORE, repr=False)


@attrs.frozen(kw_only=True)
class LanguageModelSettings:
    """The language model."""

    engine: str = setting("llama", why="Engine that thinks of replies: llama or openai.")
    fallback: tuple[str, ...] = setting(
        (), why="Engines that are asked, in this order, where that one fails or is slow."
    )
    first_answer_seconds: float = setting(
        5.0,
        unit="s",
        minimum=0.2,
        maximum=120,
        why="Longest wait for the first word of a reply before the next engine is asked.",
    )
    llama: LlamaSettings = attrs.field(factory=LlamaSettings)
    openai: OpenAiLanguageModelSettings = attrs.field(factory=OpenAiLanguageModelSettings)
    named: Mapping[str, NamedEngine] = attrs.field(default=_NONE_NAMED)
    others: Mapping[str, Any] = attrs.field(default=_NOTHING_MORE, repr=False)


@attrs.frozen(kw_only=True)
class SynthesizerSettings:
    """Speech synthesis."""

    engine: str = setting(
        "bilingual", why="Engine that speaks: bilingual, kokoro, hibari or openai."
    )
    fallback: tuple[str, ...] = setting(
        (), why="Engines that are asked, in this order, where that one fails or is slow."
    )
    first_answer_seconds: float = setting(
        4.0,
        unit="s",
        minimum=0.2,
        maximum=120,
        why="Longest wait for the first sound of a sentence before the next engine is asked.",
    )
    bilingual: BilingualSettings = attrs.field(factory=BilingualSettings)
    kokoro: KokoroSettings = attrs.field(factory=KokoroSettings)
    hibari: HibariSettings = attrs.field(factory=HibariSettings)
    openai: OpenAiSynthesizerSettings = attrs.field(factory=OpenAiSynthesizerSettings)
    named: Mapping[str, NamedEngine] = attrs.field(default=_NONE_NAMED)
    others: Mapping[str, Any] = attrs.field(default=_NOTHING_MORE, repr=False)


@attrs.frozen(kw_only=True)
class BreakerSettings:
    """The circuit breaker of each recogniser, language model and synthesizer."""

    failures: int = setting(
        3,
        minimum=1,
        maximum=1000,
        why="Failures in a row after which an engine is left alone, so that nobody waits for it.",
    )
    pause_seconds: float = setting(
        10.0,
        unit="s",
        minimum=0.5,
        maximum=3600,
        why="How long; then one request at a time finds out whether it answers again.",
    )


KINDS: Mapping[type, str] = {
    VoiceActivitySettings: "vad",
    RecognizerSettings: "asr",
    LanguageModelSettings: "llm",
    SynthesizerSettings: "tts",
}
"""The table of each kind of engine; entry points of its engines are in `entry_point_group`."""


EngineSection = (
    VoiceActivitySettings | RecognizerSettings | LanguageModelSettings | SynthesizerSettings
)
"""The settings of one kind of engine."""


def engine_called(name: str, section: EngineSection) -> NamedEngine:
    """Which engine a name of the configuration stands for, and its settings.

    What is neither built in nor a named table is taken for an installed engine.
    """
    if name in built_in_engines(type(section)):
        return NamedEngine(engine=name, settings=getattr(section, name))
    if (named := section.named.get(name)) is not None:
        return named
    return NamedEngine(engine=name, settings=section.others.get(name, {}))


def chain_of(section: EngineSection) -> tuple[str, ...]:
    """The names of the engines that are asked, in this order."""
    if isinstance(section, VoiceActivitySettings):
        return (section.engine,)
    return (section.engine, *section.fallback)


def entry_point_group(kind: str) -> str:
    """The group of the entry points that bring engines of a kind."""
    return f"xiaozhi_trio.{kind}"


def built_in_engines(section: type[Any]) -> Mapping[str, type[Any]]:
    """The settings class of each built-in engine of a kind, by its name."""
    attrs.resolve_types(section)
    return {
        field.name: field.type
        for field in attrs.fields(section)
        if field.type is not None and attrs.has(field.type)
    }
