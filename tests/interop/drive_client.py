"""Drives xiaozhi-client 0.1.5 against a server; run by the client's own interpreter.

Usage: drive_client.py WEBSOCKET_URL

Has one push-to-talk turn about a tone. What came is printed as one JSON object. It must
not import anything of xiaozhi-trio.
"""

from __future__ import annotations

import asyncio
import json
import sys
from types import ModuleType
from typing import Any

import numpy as np


class Soundless:
    """Stands in for the streams of sounddevice, which needs a sound card."""

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    stop = close = start

    def write(self, _: np.ndarray) -> None:
        pass


sounddevice: Any = ModuleType("sounddevice")
sounddevice.InputStream = sounddevice.OutputStream = Soundless
sys.modules["sounddevice"] = sounddevice

from websockets.exceptions import InvalidStatusCode  # noqa: E402 - after the stand-in
from xiaozhi_client import AudioConfig, ClientConfig, ListenMode, XiaozhiClient  # noqa: E402

DEVICE_ID = "02:22:44:66:88:BB"
RATE = 16_000
PACKET_SAMPLES = 960
SPOKEN_PACKETS = 15
STEP_SECONDS = 20.0


class Heard:
    """The server's messages, in order."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def take(self, message: dict[str, Any]) -> None:
        """The client's callback."""
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()

    async def wait_for(self, **members: str) -> None:
        """Until a message with these members has come."""
        async with self._news:
            await asyncio.wait_for(
                self._news.wait_for(
                    lambda: any(members.items() <= message.items() for message in self.messages)
                ),
                STEP_SECONDS,
            )


async def main(url: str) -> dict[str, Any]:
    client = XiaozhiClient(
        ClientConfig(ws_url=url),
        AudioConfig(sample_rate=RATE, frame_size=PACKET_SAMPLES, frame_duration=60),
    )
    client.set_device_id(DEVICE_ID)
    heard = Heard()
    client.on_hello_message = client.on_stt_message = client.on_llm_message = heard.take
    client.on_tts_start = client.on_tts_message = client.on_tts_end = heard.take
    lost: list[str] = []

    async def on_connection_lost(why: str) -> None:
        lost.append(why)

    client.on_connection_lost = on_connection_lost
    try:
        await client.connect()
    except InvalidStatusCode as refused:
        return {"refused": refused.status_code}
    await heard.wait_for(type="hello")
    await client.start_listen(ListenMode.MANUAL)
    tone = np.sin(np.arange(SPOKEN_PACKETS * PACKET_SAMPLES) * (2 * np.pi * 300 / RATE)) * 0.3
    await client.send_audio(tone.astype(np.float32))
    await client.stop_listen()
    await heard.wait_for(type="tts", state="stop")
    pcm = np.frombuffer(bytes(client.pcm_buffer), np.int16).astype(float)
    lost_early = list(lost)
    await client.close()
    return {
        "messages": heard.messages,
        "samples": pcm.size,
        "level": float(np.abs(pcm).mean()) if pcm.size else 0.0,
        "lost_early": lost_early,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))  # noqa: T201 - this is its result
