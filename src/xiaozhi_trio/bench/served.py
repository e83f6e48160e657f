"""The server under test in a process of its own: real voice detection and Opus.

Its other engines are scripted, or the real HTTP ones against a stand-in. Run as
`python -m xiaozhi_trio.bench.served` it answers `start` with its address and serves
until its stdin ends.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import attrs
import cattrs
import trio

from xiaozhi_trio.bench.foresight import packets_to_barge_ins, packets_to_the_end
from xiaozhi_trio.bench.line_process import answer_requests
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.speculation import Speculation
from xiaozhi_trio.bench.stand_in import PCM_RATE
from xiaozhi_trio.bench.voice import question, voice
from xiaozhi_trio.collector import calm_collector
from xiaozhi_trio.config.engines import (
    LanguageModelSettings,
    OpenAiLanguageModelSettings,
    OpenAiRecognizerSettings,
    OpenAiSynthesizerSettings,
    RecognizerSettings,
    SynthesizerSettings,
)
from xiaozhi_trio.config.settings import (
    LimitSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.llm.openai import NAME as OPENAI
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import LISTENING_RATE, ChatMessage
from xiaozhi_trio.engines.registry import EngineKind, build_engine
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server, StartError
from xiaozhi_trio.telemetry.logging import configure_logging
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xiaozhi_trio.engines.protocols import VoiceActivityDetector

_CONNECTIONS: Final = 20_000


@attrs.frozen
class _Voice(Tone):
    """Each sentence takes the same time, and costs the encoder what speech costs."""

    milliseconds: int = 2400

    def pcm(self, text: str, sample_rate: int) -> bytes:  # noqa: ARG002 - of any text
        return voice(self.milliseconds, sample_rate)


def _scripted(script: Script, vad: EngineSlot[VoiceActivityDetector]) -> EngineSet:
    return EngineSet(
        vad=vad,
        asr=EngineSlot(ScriptedRecognizer(script.heard, seconds=script.recognition_ms / 1000)),
        llm=EngineSlot(
            ScriptedLanguageModel(
                script.reply(),
                first_seconds=script.first_token_ms / 1000,
                piece_seconds=script.token_ms / 1000,
            )
        ),
        tts=EngineSlot(
            ScriptedSynthesizer(
                seconds=script.synthesis_ms / 1000,
                chunk_ms=script.chunk_ms,
                tone=_Voice(milliseconds=script.sentence_ms),
            )
        ),
    )


def _over_http(
    settings: Settings, models: ModelStore, vad: EngineSlot[VoiceActivityDetector]
) -> EngineSet:
    return EngineSet(
        vad=vad,
        asr=EngineSlot(build_engine(EngineKind.ASR, settings, models)),
        llm=EngineSlot(build_engine(EngineKind.LLM, settings, models)),
        tts=EngineSlot(build_engine(EngineKind.TTS, settings, models)),
    )


def _pointed_at(base_url: str, settings: Settings) -> Settings:
    """The settings with all engines but voice detection behind one OpenAI-compatible server."""
    return attrs.evolve(
        settings,
        asr=RecognizerSettings(engine=OPENAI, openai=OpenAiRecognizerSettings(base_url=base_url)),
        llm=LanguageModelSettings(
            engine=OPENAI, openai=OpenAiLanguageModelSettings(base_url=base_url)
        ),
        tts=SynthesizerSettings(
            engine=OPENAI,
            openai=OpenAiSynthesizerSettings(base_url=base_url, pcm_sample_rate=PCM_RATE),
        ),
    )


async def _use_once(engines: EngineSet) -> None:
    """Pay on both sides for imports and first connections, as a server does once in its life."""
    await (await engines.asr.ready()).transcribe(bytes(LISTENING_RATE))
    async with (await engines.llm.ready()).reply([ChatMessage("user", "Hello.")]) as pieces:
        async for _ in pieces:
            pass
    async with (await engines.tts.ready()).synthesize("Hello.") as chunks:
        async for _ in chunks:
            pass


class Served:
    """The server and what is asked of it."""

    def __init__(self, nursery: trio.Nursery, stack: ExitStack, state: str) -> None:
        """`nursery` and `stack` are where the server lives, `state` is its folder."""
        self._nursery = nursery
        self._stack = stack
        self._speculation = Speculation()
        self._settings = Settings(
            server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0),
            limits=LimitSettings(connections=_CONNECTIONS),
            state=StateSettings(directory=state),
        )

    async def start(
        self, *, script: Mapping[str, Any], stand_in: str | None = None
    ) -> Mapping[str, Any]:
        """Begin to serve; gives where, and what is known of the turns to come.

        `stand_in` is the address of an OpenAI-compatible server with the same script,
        None for scripted engines within this process.
        """
        scripted = cattrs.structure(script, Script)
        settings = attrs.evolve(self._settings, listening=scripted.listening)
        if stand_in is not None:
            settings = _pointed_at(stand_in, settings)
        configure_logging(settings.logging)
        models = ModelStore(default_model_directory(), sources=settings.models.sources)
        vad: VoiceActivityDetector = build_engine(EngineKind.VAD, settings, models)
        await vad.load()
        voice(scripted.sentence_ms, settings.audio.sample_rate)
        said = question(*scripted.said_ms)
        ends_with = await packets_to_the_end(settings.listening, vad, said)
        barge_ins = await packets_to_barge_ins(settings.listening, vad, said)
        slot = EngineSlot.of_ready(vad)
        engines = (
            _scripted(scripted, slot) if stand_in is None else _over_http(settings, models, slot)
        )
        server = await Server.build(settings, engines)
        self._stack.enter_context(server.telemetry.traces.telling(self._speculation.note))
        calm_collector()
        addresses = await self._nursery.start(server.run)
        if stand_in is not None:
            await _use_once(engines)
        path = settings.server.websocket_path
        return {
            "url": f"ws://127.0.0.1:{addresses.websocket_port}{path}",
            "ends_with": ends_with,
            "engines_ms": scripted.ms_before_speech(settings.playout.start_gap_ms),
            "barge_ins": barge_ins,
        }

    async def speculation(self) -> Mapping[str, Any]:
        """What was prepared up to now, as `Speculation`."""
        await trio.lowlevel.checkpoint()
        return attrs.asdict(self._speculation)


async def main() -> None:
    """Serve until stdin ends."""
    with tempfile.TemporaryDirectory() as state, ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            served = Served(nursery, stack, state)
            await answer_requests(
                {"start": served.start, "speculation": served.speculation},
                failures=(EngineError, StartError),
            )
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
