"""Lets xiaozhi-sdk 0.5.1 activate itself at a server; run by the SDK's own interpreter.

Usage: drive_sdk_activation.py OTA_URL

The SDK asks for activation only where OTA tells it to, so it is told so here. What came
is printed as one JSON object. It must not import anything of xiaozhi-trio.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import xiaozhi_sdk.ota

# It would ask the kernel for its route to the internet, which a test machine may not have.
xiaozhi_sdk.ota.get_ip = lambda: "127.0.0.1"

from xiaozhi_sdk import XiaoZhiWebsocket  # noqa: E402 - after the patch

DEVICE_ID = "02:22:44:66:88:AC"
STEP_SECONDS = 20.0


async def main(ota_url: str) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    answered = asyncio.Event()

    async def take(message: dict[str, Any]) -> None:
        messages.append(message)
        if message["type"] == "tts" and message["state"] == "stop":
            answered.set()

    sdk = XiaoZhiWebsocket(take, ota_url=ota_url)
    sdk.mode = "manual"
    await sdk.init_connection(DEVICE_ID, serial_number="SN1", license_key="key")
    told_to_activate = sdk.ota_task is not None
    first_session = sdk.session_id
    sdk.hello_received.clear()
    await asyncio.wait_for(
        sdk._activate_ota_device("key", {"activation": {"challenge": "challenge"}}),
        STEP_SECONDS,
    )
    await asyncio.wait_for(answered.wait(), STEP_SECONDS)
    active = not sdk.wait_device_activated
    await sdk.close()
    return {
        "told_to_activate": told_to_activate,
        "active": active,
        "sessions": [first_session, sdk.session_id],
        "token": bool(sdk.websocket_token),
        "messages": messages,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))  # noqa: T201 - this is its result
