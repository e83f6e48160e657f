"""Telling a peer that it is not let in, in the way that it can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
import trio
from loguru import logger

from xiaozhi_trio.gateway.answers import message_of, refusal_answer
from xiaozhi_trio.gateway.websocket import accept_websocket
from xiaozhi_trio.wire.closing import POLICY_VIOLATION, Closing
from xiaozhi_trio.wire.opening import PeerLeft

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import LimitSettings
    from xiaozhi_trio.wire.answer import Answer
    from xiaozhi_trio.wire.refusal import HandshakeRefused

_ALERT_SECONDS: Final = 1.0


async def send_answer(
    stream: trio.abc.Stream, answer: Answer, *, method: str = "GET", limits: LimitSettings
) -> None:
    """Send one HTTP answer, within `limits.send_seconds`."""
    with trio.move_on_after(limits.send_seconds):
        try:
            await stream.send_all(answer.encode(method))
        except trio.BrokenResourceError:
            logger.debug("peer left before its answer")


async def refuse_over_http(
    stream: trio.abc.Stream, refusal: HandshakeRefused, *, limits: LimitSettings
) -> None:
    """Refuse before the upgrade.

    For a device: a close after the upgrade leaves firmware 2.4.2 waiting ten seconds
    for a hello.
    """
    await send_answer(stream, refusal_answer(refusal), limits=limits)


async def refuse_over_websocket(
    stream: trio.abc.Stream,
    refusal: HandshakeRefused,
    *,
    key: bytes,
    received: bytes,
    limits: LimitSettings,
) -> None:
    """Let the peer in, tell it in one alert, and close with 1008.

    For a page in a browser: it learns nothing of a refused upgrade but that there
    was one.
    """
    alert = {
        "type": "alert",
        "status": "认证失败",
        "message": message_of(refusal),
        "emotion": "sad",
    }
    try:
        async with accept_websocket(stream, key=key, received=received, limits=limits) as websocket:
            with trio.move_on_after(_ALERT_SECONDS):
                try:
                    await websocket.send(orjson.dumps(alert).decode())
                except trio.BrokenResourceError as error:
                    raise PeerLeft("the peer left before it was told") from error
            await websocket.close(Closing(POLICY_VIOLATION, refusal.reason))
    except* PeerLeft:
        logger.debug("peer left before its answer")
