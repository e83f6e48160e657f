"""Which engines there are, and how the configured one is built.

An engine comes from this package or from the entry points of any other one
installed. Entry points are grouped by kind (`xiaozhi_trio.vad`, `xiaozhi_trio.asr`,
`xiaozhi_trio.llm`, `xiaozhi_trio.tts`, `xiaozhi_trio.vision`); the name of an entry
point is the engine's name in the configuration, its object is an `EngineFactory`.
Nothing of an engine is imported before it is chosen.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import attrs

from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    SpeechRecognizer,
    SpeechSynthesizer,
    VisionModel,
    VoiceActivityDetector,
)

if TYPE_CHECKING:
    from xiaozhi_trio.engines.model_folder import ModelFolder


class EngineKind(enum.Enum):
    """What an engine is for; the value is the name of its table in the configuration."""

    VAD = "vad"
    ASR = "asr"
    LLM = "llm"
    TTS = "tts"
    VISION = "vision"

    @property
    def group(self) -> str:
        """The group of its entry points."""
        return f"xiaozhi_trio.{self.value}"

    @property
    def protocol(self) -> type:
        """What an engine of this kind must have."""
        return _PROTOCOLS[self]


_PROTOCOLS: Mapping[EngineKind, type] = {
    EngineKind.VAD: VoiceActivityDetector,
    EngineKind.ASR: SpeechRecognizer,
    EngineKind.LLM: LanguageModel,
    EngineKind.TTS: SpeechSynthesizer,
    EngineKind.VISION: VisionModel,
}


class EngineFactory(Protocol):
    """What an entry point gives: it makes an engine out of that engine's configuration table."""

    def __call__(self, options: Mapping[str, Any], /) -> Engine:
        """Make the engine; loading waits for `Engine.load`.

        `options` is the table `[<kind>.<name>]` as it stands in the file, empty where
        there is none. Wrong options are a ValueError or an `EngineError` whose message
        says what to change.
        """


class FallbackUnavailable(EngineError):
    """An engine that the setting `fallback` names cannot be made."""


_Builder = Callable[[Settings, "ModelFolder"], Engine]


@attrs.frozen
class _BuiltIn:
    """A class of this package, made from its settings and, where it has files, the models."""

    path: str
    settings: Callable[[Settings], Any]
    has_models: bool = True

    def build(self, settings: Settings, models: ModelFolder) -> Engine:
        module_name, _, class_name = self.path.rpartition(".")
        engine_class = getattr(importlib.import_module(module_name), class_name)
        arguments = (models,) if self.has_models else ()
        engine: Engine = engine_class(self.settings(settings), *arguments)
        return engine


def _build_bilingual(settings: Settings, models: ModelFolder) -> Engine:
    from xiaozhi_trio.engines.tts.bilingual import BilingualSynthesizer

    chosen = settings.tts.bilingual
    if "bilingual" in (chosen.chinese, chosen.english):
        raise _unavailable(
            "bilingual", "[tts.bilingual] names bilingual itself; name the engines it chooses from"
        )
    chinese = _build(EngineKind.TTS, chosen.chinese, settings, models)
    if chosen.english == chosen.chinese:
        return chinese
    english = _build(EngineKind.TTS, chosen.english, settings, models)
    engine: Engine = BilingualSynthesizer(
        cast("SpeechSynthesizer", chinese), cast("SpeechSynthesizer", english)
    )
    return engine


_PACKAGE = "xiaozhi_trio.engines"

_BUILT_IN: Mapping[EngineKind, Mapping[str, _Builder]] = {
    EngineKind.VAD: {
        "silero": _BuiltIn(f"{_PACKAGE}.vad.silero.SileroDetector", lambda s: s.vad.silero).build,
    },
    EngineKind.ASR: {
        "whisper": _BuiltIn(
            f"{_PACKAGE}.asr.whisper.WhisperRecognizer", lambda s: s.asr.whisper
        ).build,
        "openai": _BuiltIn(
            f"{_PACKAGE}.asr.openai.OpenAiRecognizer", lambda s: s.asr.openai, has_models=False
        ).build,
    },
    EngineKind.LLM: {
        "llama": _BuiltIn(f"{_PACKAGE}.llm.llama.LlamaLanguageModel", lambda s: s.llm.llama).build,
        "openai": _BuiltIn(
            f"{_PACKAGE}.llm.openai.OpenAiLanguageModel", lambda s: s.llm.openai, has_models=False
        ).build,
    },
    EngineKind.TTS: {
        "bilingual": _build_bilingual,
        "kokoro": _BuiltIn(
            f"{_PACKAGE}.tts.kokoro.KokoroSynthesizer", lambda s: s.tts.kokoro
        ).build,
        "hibari": _BuiltIn(
            f"{_PACKAGE}.tts.hibari.HibariSynthesizer", lambda s: s.tts.hibari
        ).build,
        "openai": _BuiltIn(
            f"{_PACKAGE}.tts.openai.OpenAiSynthesizer", lambda s: s.tts.openai, has_models=False
        ).build,
    },
    EngineKind.VISION: {},
}

# What code of another package that is wrong or wrongly configured commonly raises.
_FAULTS = (
    ImportError,
    AttributeError,
    SyntaxError,
    TypeError,
    ValueError,
    LookupError,
    OSError,
    RuntimeError,
)


def engine_names(kind: EngineKind) -> Sequence[str]:
    """The engines that can be chosen: built-in ones first, then installed ones."""
    built_in = _BUILT_IN[kind]
    installed = {entry.name for entry in importlib.metadata.entry_points(group=kind.group)}
    return [*built_in, *sorted(installed - set(built_in))]


@overload
def build_engine(
    kind: Literal[EngineKind.VAD], settings: Settings, models: ModelFolder
) -> VoiceActivityDetector: ...
@overload
def build_engine(
    kind: Literal[EngineKind.ASR], settings: Settings, models: ModelFolder
) -> SpeechRecognizer: ...
@overload
def build_engine(
    kind: Literal[EngineKind.LLM], settings: Settings, models: ModelFolder
) -> LanguageModel: ...
@overload
def build_engine(
    kind: Literal[EngineKind.TTS], settings: Settings, models: ModelFolder
) -> SpeechSynthesizer: ...
@overload
def build_engine(
    kind: Literal[EngineKind.VISION], settings: Settings, models: ModelFolder
) -> VisionModel: ...
@overload
def build_engine(kind: EngineKind, settings: Settings, models: ModelFolder) -> Engine: ...
def build_engine(kind: EngineKind, settings: Settings, models: ModelFolder) -> Engine:
    """The engine the settings choose for `kind`, not loaded yet.

    Raises `EngineError` (unavailable) where no engine has that name, where it cannot
    be imported or made, and where what was made is no engine of this kind.
    """
    chosen = getattr(settings, kind.value, None)
    if chosen is None:
        raise _unavailable(kind.value, f"the configuration has no table [{kind.value}]")
    return _build(kind, chosen.engine, settings, models)


@overload
def build_chain(
    kind: Literal[EngineKind.ASR], settings: Settings, models: ModelFolder
) -> Sequence[SpeechRecognizer]: ...
@overload
def build_chain(
    kind: Literal[EngineKind.LLM], settings: Settings, models: ModelFolder
) -> Sequence[LanguageModel]: ...
@overload
def build_chain(
    kind: Literal[EngineKind.TTS], settings: Settings, models: ModelFolder
) -> Sequence[SpeechSynthesizer]: ...
@overload
def build_chain(kind: EngineKind, settings: Settings, models: ModelFolder) -> Sequence[Engine]: ...
def build_chain(kind: EngineKind, settings: Settings, models: ModelFolder) -> Sequence[Engine]:
    """The engine the settings choose for `kind` and those of its `fallback`, in that order.

    Raises `EngineError` as `build_engine` does, `FallbackUnavailable` for one of `fallback`.
    """
    engines = [build_engine(kind, settings, models)]
    for name in getattr(getattr(settings, kind.value), "fallback", ()):
        try:
            engines.append(_build(kind, name, settings, models))
        except EngineError as error:
            raise FallbackUnavailable(
                f"named by [{kind.value}] fallback: {error.args[0]}",
                engine=error.engine,
                category=error.category,
            ) from error
    return engines


def _build(kind: EngineKind, name: str, settings: Settings, models: ModelFolder) -> Engine:
    builder = _BUILT_IN[kind].get(name)
    if builder is not None:
        try:
            return builder(settings, models)
        except ImportError as error:
            if (error.name or "").startswith("xiaozhi_trio"):
                raise
            raise _unavailable(
                name,
                f"what it needs cannot be imported: {error}; "
                "install xiaozhi-trio with its extra embedded, or choose another engine",
            ) from error
    entries = list(importlib.metadata.entry_points(group=kind.group, name=name))
    if not entries:
        raise _unavailable(
            name,
            f"no engine of kind {kind.value} has this name; "
            f"known are {', '.join(engine_names(kind)) or 'none'}. "
            f"Others come with packages that have an entry point in the group {kind.group}",
        )
    if len(entries) > 1:
        sources = ", ".join(sorted(_distribution(entry) for entry in entries))
        raise _unavailable(name, f"several packages provide it: {sources}; uninstall all but one")
    options = getattr(settings, kind.value).others.get(name, {})
    return _build_from(entries[0], kind, options)


def _build_from(
    entry: importlib.metadata.EntryPoint, kind: EngineKind, options: Mapping[str, Any]
) -> Engine:
    origin = f"entry point {entry.value} of the package {_distribution(entry)}"
    try:
        factory = entry.load()
    except _FAULTS as error:
        raise _unavailable(entry.name, f"{origin} cannot be loaded: {error!r}") from error
    if not callable(factory):
        raise _unavailable(entry.name, f"{origin} is no factory but a {type(factory).__name__}")
    try:
        engine = factory(options)
    except _FAULTS as error:
        raise _unavailable(
            entry.name,
            f"{origin} cannot make an engine of [{kind.value}.{entry.name}]: {error!r}",
        ) from error
    if not isinstance(engine, kind.protocol):
        raise _unavailable(
            entry.name,
            f"{origin} made a {type(engine).__name__}, which is no {kind.protocol.__name__}; "
            f"it lacks {', '.join(_missing(engine, kind.protocol))}",
        )
    return cast("Engine", engine)


def _missing(engine: object, protocol: type) -> Sequence[str]:
    members = {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}
    return sorted(name for name in members if not hasattr(engine, name))


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _unavailable(name: str, message: str) -> EngineError:
    return EngineError(message, engine=name, category=EngineErrorCategory.UNAVAILABLE)
