"""What client and server agree on at hello."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from loguru import logger

from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.messages import FRAME_DURATIONS, OPUS_RATES, AudioParams, Hello

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import AudioSettings
    from xiaozhi_trio.wire.handshake import Handshake
    from xiaozhi_trio.wire.violation import ProtocolViolation


class HelloRefused(Exception):
    """The client wants something this server does not speak."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """`transport_unsupported`, `format_unsupported` or `hello_malformed`."""


@attrs.frozen
class Agreement:
    """The outcome of a hello."""

    binary_version: int
    """Framing of audio, both ways."""
    speech: AudioParams
    """What the server sends."""

    @property
    def carries_timestamps(self) -> bool:
        """Whether frames tell which packet of ours was heard while they were recorded."""
        return self.binary_version == 2


def malformed_hello(violation: ProtocolViolation) -> HelloRefused:
    """The refusal of a hello that cannot be read."""
    problem = violation.args[0][:200]
    return HelloRefused(
        violation.reason, f"hello 消息格式不正确。 The hello cannot be read: {problem}"
    )


def negotiate(hello: Hello, handshake: Handshake, audio: AudioSettings) -> Agreement:
    """Settle framing and the downlink's audio. Raises `HelloRefused`.

    The uplink needs no agreement: an Opus packet tells its own length, and is decoded
    at the rate recognisers want whatever it was encoded at.
    """
    if hello.transport != "websocket":
        raise HelloRefused(
            "transport_unsupported",
            "不支持该传输方式，请使用 websocket。 "
            f"Transport {hello.transport[:20]!r} is not spoken here, use websocket.",
        )
    if hello.audio_params.format != "opus":
        raise HelloRefused(
            "format_unsupported",
            "不支持该音频格式，请使用 opus。 "
            f"Audio format {hello.audio_params.format[:20]!r} is not spoken here, use opus.",
        )
    rate = audio.sample_rate
    if hello.features.consistent_sample_rate and hello.audio_params.sample_rate in OPUS_RATES:
        rate = hello.audio_params.sample_rate
    return Agreement(
        _binary_version(hello, handshake.protocol_version),
        AudioParams(
            sample_rate=rate,
            frame_duration=_frame_duration(hello.audio_params.frame_duration, audio.frame_ms),
        ),
    )


def framing(hello: Hello, announced: int) -> int:
    """The binary version that counts; `announced` is that of the handshake.

    The hello decides where it names a version, because it is the later word.
    """
    return hello.version if hello.version in binary.VERSIONS else announced


def _binary_version(hello: Hello, announced: int) -> int:
    version = framing(hello, announced)
    if version != announced:
        logger.bind(header=announced, hello=version).warning(
            "framing of header and hello differ, the hello counts"
        )
    return version


def _frame_duration(client_ms: int, server_ms: int) -> int:
    """The longest packet that both sides handle, ms.

    xiaozhi-sdk 0.5.1 loses packets longer than those it sends.
    """
    longest = min(client_ms, server_ms) if client_ms > 0 else server_ms
    return max(
        (duration for duration in FRAME_DURATIONS if duration <= longest),
        default=FRAME_DURATIONS[0],
    )
