"""The whole server with scripted engines, as a program of its own.

Usage: scripted_server.py STATE_DIRECTORY [--authentication]

Prints its addresses as one JSON object and serves until its standard input ends. It
hears "今天星期几" in whatever is said, and answers everything with one sentence.
"""

from __future__ import annotations

import json
import sys

import trio
from loguru import logger

from xiaozhi_trio.config.settings import (
    AuthenticationSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server, ServingAddresses
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    Tone,
)


async def main(state: str, *, authentication: bool) -> None:
    server = await Server.build(
        Settings(
            server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0),
            state=StateSettings(directory=state),
            authentication=AuthenticationSettings(enabled=authentication),
        ),
        EngineSet(
            vad=EngineSlot.of_ready(LoudnessDetector()),
            asr=EngineSlot.of_ready(ScriptedRecognizer("今天星期几")),
            llm=EngineSlot.of_ready(ScriptedLanguageModel(["今天是星期天。"])),
            tts=EngineSlot.of_ready(ScriptedSynthesizer(tone=Tone(ms_per_character=60))),
        ),
    )
    async with trio.open_nursery() as nursery:
        addresses: ServingAddresses = await nursery.start(server.run)
        told = {
            "ota_url": f"http://127.0.0.1:{addresses.http_port}/xiaozhi/ota/",
            "websocket_url": f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/",
        }
        print(json.dumps(told), flush=True)  # noqa: T201 - this is its result
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as until:
            while await until.receive_some():
                pass
        server.shutdown.set()


if __name__ == "__main__":
    logger.remove()
    trio.run(lambda: main(sys.argv[1], authentication="--authentication" in sys.argv))
