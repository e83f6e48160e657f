"""What answers of engines consist of, and whether a piece is fit for use.

Engines that others wrote may give anything. Each check returns what is wrong, or ""
for a good piece.
"""

from __future__ import annotations

from xiaozhi_trio.engines.protocols import (
    HIGHEST_SPEECH_RATE,
    LOWEST_SPEECH_RATE,
    PcmChunk,
    Transcript,
)


def transcript_fault(piece: object) -> str:
    """For recognisers."""
    if not isinstance(piece, Transcript):
        return _misfit(piece, "Transcript")
    text: object = piece.text
    return "" if isinstance(text, str) else _misfit(text, "text in a Transcript")


def text_fault(piece: object) -> str:
    """For language models."""
    return "" if isinstance(piece, str) else _misfit(piece, "text")


def speech_fault(piece: object) -> str:
    """For synthesizers."""
    if not isinstance(piece, PcmChunk):
        return _misfit(piece, "PcmChunk")
    if len(piece.pcm) % 2:
        return f"{len(piece.pcm)} bytes of PCM came, samples are of two"
    if not LOWEST_SPEECH_RATE <= piece.sample_rate <= HIGHEST_SPEECH_RATE:
        return (
            f"a rate of {piece.sample_rate} Hz came, expected {LOWEST_SPEECH_RATE} to "
            f"{HIGHEST_SPEECH_RATE}"
        )
    return ""


def _misfit(piece: object, expected: str) -> str:
    return f"{type(piece).__name__} came, expected {expected}"
