"""Which models of the catalogue a configuration needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.config.engines import (
    BilingualSettings,
    KokoroSettings,
    LlamaSettings,
    SileroSettings,
    WhisperSettings,
    chain_of,
    engine_called,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.config.engines import EngineSection, NamedEngine
    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.catalogue import Catalogue


def needed_models(settings: Settings, catalogue: Catalogue) -> list[str]:
    """The models of the embedded engines that are chosen, fallback engines too, each once."""
    return list(dict.fromkeys(_models_of(settings, catalogue)))


def _models_of(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    for section in (settings.vad, settings.asr, settings.llm, settings.tts):
        for chosen in _chosen_engines(section):
            match chosen.settings:
                case SileroSettings():
                    yield "silero-vad"
                case WhisperSettings(model=model) | LlamaSettings(model=model):
                    yield model
                case KokoroSettings() as kokoro:
                    yield "kokoro"
                    included = {file.name for file in catalogue.model("kokoro").files}
                    if not {f"{kokoro.voice_zh}.bin", f"{kokoro.voice_en}.bin"} <= included:
                        yield "kokoro-voices-extra"


def _chosen_engines(section: EngineSection) -> Iterator[NamedEngine]:
    """The engines of one kind that are loaded."""
    for name in chain_of(section):
        chosen = engine_called(name, section)
        yield chosen
        if isinstance(chosen.settings, BilingualSettings):
            yield engine_called(chosen.settings.chinese, section)
            yield engine_called(chosen.settings.english, section)
