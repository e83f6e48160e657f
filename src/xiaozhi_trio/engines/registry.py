"""Which engines there are, and how the configured one is built.

An engine comes from this package or from the entry points of any other one
installed. Entry points are grouped by kind (`xiaozhi_trio.vad`, `xiaozhi_trio.asr`,
`xiaozhi_trio.llm`, `xiaozhi_trio.tts`, `xiaozhi_trio.vision`); the name of an entry
point is the engine's name in the configuration, its object is an `EngineFactory`.
The configuration can have several of one engine, each under a name of its own.
Nothing of an engine is imported before it is chosen.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import attrs

from xiaozhi_trio.config.engines import engine_called, entry_point_group
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.named import under_name
from xiaozhi_trio.engines.protocols import (
    Engine,
    LanguageModel,
    SpeechRecognizer,
    SpeechSynthesizer,
    VisionModel,
    VoiceActivityDetector,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xiaozhi_trio.config.engines import BilingualSettings, EngineSection
    from xiaozhi_trio.config.settings import Settings
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
        return entry_point_group(self.value)

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
        there is none, and without `engine` where that gives it another name. Wrong options
        are a ValueError or an `EngineError` whose message says what to change.
        """


class FallbackUnavailable(EngineError):
    """An engine that the setting `fallback` names cannot be made."""


class _Builder(Protocol):
    """Makes a built-in engine under a name, of its own table's settings."""

    def __call__(
        self, name: str, chosen: Any, settings: Settings, models: ModelFolder, /
    ) -> Engine: ...


@attrs.frozen
class _BuiltIn:
    """A class of this package, made from its settings and, where it has files, the models."""

    path: str
    has_models: bool = True

    def __call__(self, name: str, chosen: Any, _: Settings, models: ModelFolder, /) -> Engine:
        module_name, __, class_name = self.path.rpartition(".")
        engine_class = getattr(importlib.import_module(module_name), class_name)
        arguments = (models,) if self.has_models else ()
        engine: Engine = engine_class(chosen, *arguments, name=name)
        return engine


def _build_bilingual(
    name: str, chosen: BilingualSettings, settings: Settings, models: ModelFolder, /
) -> Engine:
    from xiaozhi_trio.engines.tts.bilingual import BilingualSynthesizer

    for part in (chosen.chinese, chosen.english):
        if engine_called(part, settings.tts).engine == "bilingual":
            raise _unavailable(
                name,
                f"[tts.{name}] names {part}, which is bilingual itself; "
                "name the engines it chooses from",
            )
    if chosen.english == chosen.chinese:
        return _build(EngineKind.TTS, chosen.chinese, settings, models, as_name=name)
    chinese = _build(EngineKind.TTS, chosen.chinese, settings, models)
    english = _build(EngineKind.TTS, chosen.english, settings, models)
    engine: Engine = BilingualSynthesizer(
        cast("SpeechSynthesizer", chinese), cast("SpeechSynthesizer", english), name=name
    )
    return engine


_PACKAGE = "xiaozhi_trio.engines"

_BUILT_IN: Mapping[EngineKind, Mapping[str, _Builder]] = {
    EngineKind.VAD: {"silero": _BuiltIn(f"{_PACKAGE}.vad.silero.SileroDetector")},
    EngineKind.ASR: {
        "whisper": _BuiltIn(f"{_PACKAGE}.asr.whisper.WhisperRecognizer"),
        "openai": _BuiltIn(f"{_PACKAGE}.asr.openai.OpenAiRecognizer", has_models=False),
    },
    EngineKind.LLM: {
        "llama": _BuiltIn(f"{_PACKAGE}.llm.llama.LlamaLanguageModel"),
        "openai": _BuiltIn(f"{_PACKAGE}.llm.openai.OpenAiLanguageModel", has_models=False),
    },
    EngineKind.TTS: {
        "bilingual": _build_bilingual,
        "kokoro": _BuiltIn(f"{_PACKAGE}.tts.kokoro.KokoroSynthesizer"),
        "hibari": _BuiltIn(f"{_PACKAGE}.tts.hibari.HibariSynthesizer"),
        "openai": _BuiltIn(f"{_PACKAGE}.tts.openai.OpenAiSynthesizer", has_models=False),
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


def _build(
    kind: EngineKind,
    name: str,
    settings: Settings,
    models: ModelFolder,
    *,
    as_name: str | None = None,
) -> Engine:
    """The engine that the configuration calls `name`; `as_name` is what it calls itself."""
    section = getattr(settings, kind.value)
    chosen = engine_called(name, section)
    as_name = as_name or name
    builder = _BUILT_IN[kind].get(chosen.engine)
    if builder is not None:
        try:
            return builder(as_name, chosen.settings, settings, models)
        except ImportError as error:
            if (error.name or "").startswith("xiaozhi_trio"):
                raise
            raise _unavailable(
                name,
                f"what it needs cannot be imported: {error}; "
                "install xiaozhi-trio with its extra embedded, or choose another engine",
            ) from error
    entry = _entry_point(kind, name, chosen.engine, section)
    engine = _build_from(entry, kind, name, chosen.settings)
    if as_name in (chosen.engine, engine.name):
        return engine
    return under_name(as_name, engine, kind.protocol)


def _entry_point(
    kind: EngineKind, name: str, engine: str, section: EngineSection
) -> importlib.metadata.EntryPoint:
    entries = list(importlib.metadata.entry_points(group=kind.group, name=engine))
    if not entries:
        hint = (
            f"; or say in [{kind.value}.{name}] which engine it is: engine = …"
            if name in section.others
            else ""
        )
        raise _unavailable(
            name,
            f"no engine of kind {kind.value} has this name; "
            f"known are {', '.join([*engine_names(kind), *section.named]) or 'none'}. "
            f"Others come with packages that have an entry point in the group {kind.group}{hint}",
        )
    if len(entries) > 1:
        sources = ", ".join(sorted(_distribution(entry) for entry in entries))
        raise _unavailable(name, f"several packages provide it: {sources}; uninstall all but one")
    return entries[0]


def _build_from(
    entry: importlib.metadata.EntryPoint, kind: EngineKind, name: str, options: Mapping[str, Any]
) -> Engine:
    origin = f"entry point {entry.value} of the package {_distribution(entry)}"
    try:
        factory = entry.load()
    except _FAULTS as error:
        raise _unavailable(name, f"{origin} cannot be loaded: {error!r}") from error
    if not callable(factory):
        raise _unavailable(name, f"{origin} is no factory but a {type(factory).__name__}")
    try:
        engine = factory(options)
    except _FAULTS as error:
        raise _unavailable(
            name, f"{origin} cannot make an engine of [{kind.value}.{name}]: {error!r}"
        ) from error
    if not isinstance(engine, kind.protocol):
        raise _unavailable(
            name,
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
