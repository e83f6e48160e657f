"""Which models of the catalogue a configuration needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.engines.catalogue import Catalogue


def needed_models(settings: Settings, catalogue: Catalogue) -> list[str]:
    """The models of the embedded engines that are chosen, fallback engines too, each once."""
    return list(dict.fromkeys(_models_of(settings, catalogue)))


def _models_of(settings: Settings, catalogue: Catalogue) -> Iterator[str]:
    if settings.vad.engine == "silero":
        yield "silero-vad"
    if "whisper" in (settings.asr.engine, *settings.asr.fallback):
        yield settings.asr.whisper.model
    if "llama" in (settings.llm.engine, *settings.llm.fallback):
        yield settings.llm.llama.model
    speaking = {settings.tts.engine, *settings.tts.fallback}
    if "bilingual" in speaking:
        speaking |= {settings.tts.bilingual.chinese, settings.tts.bilingual.english}
    if "kokoro" in speaking:
        yield "kokoro"
        kokoro = settings.tts.kokoro
        included = {file.name for file in catalogue.model("kokoro").files}
        if not {f"{kokoro.voice_zh}.bin", f"{kokoro.voice_en}.bin"} <= included:
            yield "kokoro-voices-extra"
