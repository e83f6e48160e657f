"""A scenario's engines as a server uses them: in slots, with retries, fallbacks and circuits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xiaozhi_trio.engines.fallback import (
    FallbackLanguageModel,
    FallbackRecognizer,
    FallbackSynthesizer,
)
from xiaozhi_trio.engines.fallback_link import FallbackPolicy
from xiaozhi_trio.engines.registry import EngineKind
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot, FallbackSlot

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import Settings
    from xiaozhi_trio.testing.scenario_engines import ScenarioEngines


def engine_set(engines: ScenarioEngines, settings: Settings) -> EngineSet:
    """The engines, to be loaded by the set's `load`."""

    def policy(first_answer_seconds: float) -> FallbackPolicy:
        return FallbackPolicy(
            first_answer_seconds=first_answer_seconds,
            failures=settings.breaker.failures,
            pause_seconds=settings.breaker.pause_seconds,
        )

    return EngineSet(
        vad=EngineSlot(engines.vad),
        asr=FallbackSlot(
            FallbackRecognizer,
            [engines.asr],
            policy(settings.asr.first_answer_seconds),
            kind=EngineKind.ASR,
        ),
        llm=FallbackSlot(
            FallbackLanguageModel,
            [engine for engine in (engines.llm, engines.llm_fallback) if engine is not None],
            policy(settings.llm.first_answer_seconds),
            kind=EngineKind.LLM,
        ),
        tts=FallbackSlot(
            FallbackSynthesizer,
            [engine for engine in (engines.tts, engines.tts_fallback) if engine is not None],
            policy(settings.tts.first_answer_seconds),
            kind=EngineKind.TTS,
        ),
    )
