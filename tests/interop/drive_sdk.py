"""Drives xiaozhi-sdk 0.5.1 against a server; run by the SDK's own interpreter.

Usage: drive_sdk.py OTA_URL SPEECH.wav TEXT

The WAV holds one question (16 kHz, mono, 16 bit), TEXT is another one. What came is
printed as one JSON object. It must not import anything of xiaozhi-trio.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from typing import Any

import numpy as np
import xiaozhi_sdk.ota

# It would ask the kernel for its route to the internet, which a test machine may not have.
xiaozhi_sdk.ota.get_ip = lambda: "127.0.0.1"

from xiaozhi_sdk import XiaoZhiWebsocket  # noqa: E402 - after the patch

DEVICE_ID = "02:22:44:66:88:AA"
PACKET_MS = 60
PACKET_SAMPLES = 16_000 * PACKET_MS // 1000
TURN_SECONDS = 60.0

ECHO_TOOL: dict[str, Any] = {
    "name": "self.test.echo",
    "description": "Gives back what it is given.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
    "tool_func": lambda arguments: ({"echo": arguments}, False),
}


class Turns:
    """The messages of the server, turn by turn."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.closed = False
        self._over = asyncio.Event()

    async def take(self, message: dict[str, Any]) -> None:
        """The SDK's callback."""
        if message["type"] == "websocket":
            self.closed = True
            return
        self.messages.append(message)
        if message["type"] == "tts" and message["state"] == "stop":
            self._over.set()

    async def next_one(self, sdk: XiaoZhiWebsocket) -> dict[str, Any]:
        """Wait for the end of a turn; tells what came in it."""
        await asyncio.wait_for(self._over.wait(), TURN_SECONDS)
        self._over.clear()
        messages, self.messages = self.messages, []
        frames = [np.asarray(frame).ravel() for frame in sdk.output_audio_queue]
        sdk.output_audio_queue.clear()
        return {"messages": messages, "samples": sum(frame.size for frame in frames)}


async def speak(sdk: XiaoZhiWebsocket, path: str) -> None:
    """Stream the WAV in real time, as the SDK's own command line does."""
    with wave.open(path) as file:
        while frame := file.readframes(PACKET_SAMPLES):
            if not await sdk.send_audio(frame.ljust(PACKET_SAMPLES * 2, b"\0")):
                raise RuntimeError("the server has hung up")
            await asyncio.sleep(PACKET_MS / 1000)


async def main(ota_url: str, wav: str, text: str) -> dict[str, Any]:
    turns = Turns()
    sdk = XiaoZhiWebsocket(
        turns.take, ota_url=ota_url, audio_sample_rate=16_000, audio_frame_duration=PACKET_MS
    )
    sdk.mode = "auto"
    await sdk.set_mcp_tool([ECHO_TOOL])
    connected = await sdk.init_connection(DEVICE_ID, serial_number="SN1", license_key="key")
    if not connected:
        raise RuntimeError("the SDK could not connect")
    await speak(sdk, wav)
    # All at once: the server has to count the time of the audio.
    await sdk.send_silence_audio(1.2)
    voice_turn = await turns.next_one(sdk)
    await sdk.send_text(text)
    text_turn = await turns.next_one(sdk)
    hung_up_early = turns.closed
    await sdk.close()
    return {
        "session_id": sdk.session_id,
        "websocket_url": sdk.url,
        "explain_url": sdk.explain_url,
        "explain_token": sdk.explain_token,
        "voice_turn": voice_turn,
        "text_turn": text_turn,
        "hung_up_early": hung_up_early,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))  # noqa: T201 - this is its result
