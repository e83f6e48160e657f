"""The server under test in a process of its own: real VAD and Opus, scripted engines.

Run as `python -m xiaozhi_trio.bench.served`; it answers `start` with its address and
serves until its stdin ends.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Final

import attrs
import cattrs
import trio

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.bench.line_process import answer_requests
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.voice import question, voice
from xiaozhi_trio.collector import calm_collector
from xiaozhi_trio.config.settings import (
    LimitSettings,
    ListeningSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.engines.registry import EngineKind, build_engine
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server, StartError
from xiaozhi_trio.session.listening import Listening
from xiaozhi_trio.telemetry.logging import configure_logging
from xiaozhi_trio.testing import (
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)
from xiaozhi_trio.wire.messages import ListenMode

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


def _engines(script: Script, vad: VoiceActivityDetector) -> EngineSet:
    return EngineSet(
        vad=EngineSlot.of_ready(vad),
        asr=EngineSlot(ScriptedRecognizer("Tell me.", seconds=script.recognition_ms / 1000)),
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


async def packets_to_the_end(settings: ListeningSettings, vad: VoiceActivityDetector) -> int | None:
    """With how many packets of the bench's question a server finds its end; None: never."""
    ear, decoder = Listening(settings), OpusDecoder(LISTENING_RATE)
    ear.attach(vad.open_stream())
    ear.open(ListenMode.AUTO)
    for number, packet in enumerate(question().packets, start=1):
        if await ear.accept(decoder.decode(packet)) is not None:
            return number
    return None


class Served:
    """The server and what is asked of it."""

    def __init__(self, nursery: trio.Nursery, state: str) -> None:
        self._nursery = nursery
        self._settings = Settings(
            server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0),
            limits=LimitSettings(connections=_CONNECTIONS),
            state=StateSettings(directory=state),
        )

    async def start(self, *, script: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin to serve; gives where, and what is known of the turns to come."""
        settings = self._settings
        configure_logging(settings.logging)
        models = ModelStore(default_model_directory(), sources=settings.models.sources)
        vad: VoiceActivityDetector = build_engine(EngineKind.VAD, settings, models)
        await vad.load()
        scripted = cattrs.structure(script, Script)
        voice(scripted.sentence_ms, settings.audio.sample_rate)
        ends_with = await packets_to_the_end(settings.listening, vad)
        server = await Server.build(settings, _engines(scripted, vad))
        calm_collector()
        addresses = await self._nursery.start(server.run)
        path = settings.server.websocket_path
        return {
            "url": f"ws://127.0.0.1:{addresses.websocket_port}{path}",
            "ends_with": ends_with,
            "engines_ms": scripted.ms_before_speech(settings.playout.start_gap_ms),
        }


async def main() -> None:
    """Serve until stdin ends."""
    with tempfile.TemporaryDirectory() as state:
        async with trio.open_nursery() as nursery:
            await answer_requests(
                {"start": Served(nursery, state).start}, failures=(EngineError, StartError)
            )
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
