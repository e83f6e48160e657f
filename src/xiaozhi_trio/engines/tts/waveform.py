"""What the embedded synthesizers share: clauses made ahead, and float audio as PCM."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from xiaozhi_trio.engines.ahead import run_ahead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    import numpy.typing as npt
    import trio

    from xiaozhi_trio.engines.protocols import PcmChunk

T = TypeVar("T")

_FULL_SCALE = 32_767.0
# The IPA modifiers for stress, length and aspiration are letters to Unicode (Lm), but no sounds.
_SOUNDS = frozenset({"Ll", "Lu", "Lo"})


def speak_ahead(
    pieces: Sequence[T], speak: Callable[[T], Awaitable[PcmChunk | None]]
) -> AbstractAsyncContextManager[AsyncIterator[PcmChunk]]:
    """The chunks of `pieces`, each made while the one before it is being used.

    Only one chunk is made ahead: the model is free for others in between. Where
    `speak` gives None there was nothing to say.
    """

    async def produce(send: trio.MemorySendChannel[PcmChunk]) -> None:
        for piece in pieces:
            chunk = await speak(piece)
            if chunk is not None:
                await send.send(chunk)

    return run_ahead(produce, room=0)


def to_pcm(audio: npt.NDArray[np.float32]) -> bytes:
    """Float audio, full scale 1, as PCM; louder audio is turned down as a whole."""
    peak = max(1.0, float(np.abs(audio).max(initial=0.0)))
    return (audio * (_FULL_SCALE / peak)).astype("<i2").tobytes()


def has_sound(phonemes: str) -> bool:
    """True where at least one phoneme is a sound rather than a stress mark or punctuation."""
    return any(unicodedata.category(character) in _SOUNDS for character in phonemes)
