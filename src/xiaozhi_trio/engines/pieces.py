"""What answers of engines consist of, and whether a piece is fit for use.

Engines that others wrote may give anything. Each check returns what is wrong, or ""
for a good piece.
"""

from __future__ import annotations

from typing import Final

from xiaozhi_trio.engines.protocols import (
    HIGHEST_SPEECH_RATE,
    LOWEST_SPEECH_RATE,
    PcmChunk,
    ToolCall,
    Transcript,
)

NO_SPEECH: Final = "nothing was spoken of a sentence that has words"
"""Where a synthesizer ends without a sound."""


def transcript_fault(piece: object) -> str:
    """For recognisers."""
    if not isinstance(piece, Transcript):
        return _misfit(piece, "Transcript")
    text: object = piece.text
    return "" if isinstance(text, str) else _misfit(text, "text in a Transcript")


def reply_fault(piece: object) -> str:
    """For language models."""
    if isinstance(piece, ToolCall):
        parts: tuple[object, ...] = (piece.id, piece.name, piece.arguments)
        wrong = next((part for part in parts if not isinstance(part, str)), "")
        return "" if wrong == "" else _misfit(wrong, "text in a ToolCall")
    return "" if isinstance(piece, str) else _misfit(piece, "text or ToolCall")


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
