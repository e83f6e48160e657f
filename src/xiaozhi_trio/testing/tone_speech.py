"""Speech made of tones: text that survives Opus, so that a test can tell what was heard.

Each byte of the text's UTF-8 is one symbol of 60 ms: a low tone for half of it, a
higher one for the other half, and under them a pilot that alternates from symbol to
symbol, so that the symbols need no clock. An English letter takes 60 ms and a Chinese
character 180 ms, about as long as people need. A symbol is understood from half its
length, and symbols begin in the middle of 20, 40 and 60 ms packets, so that a lost
packet mostly leaves the text whole. Sound that is no tone speech is not understood.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from xiaozhi_trio.engines.protocols import LISTENING_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SYMBOL_MS: Final = 60
LEAD_IN_MS: Final = 90
"""A sound before the first symbol. One and a half packets of 60 ms."""

_LEAD_IN_HERTZ: Final = 350.0
_PILOTS: Final = np.array([_LEAD_IN_HERTZ, 500.0, 650.0])
"""Of the lead-in, of even and of odd symbols."""
_LOW: Final = 900.0 + 125.0 * np.arange(16)
_HIGH: Final = 3000.0 + 125.0 * np.arange(16)
_TONES: Final = np.concatenate([_PILOTS, _LOW, _HIGH])
_LEVEL: Final = 9000
"""Peak of the sum of the tones."""
_EDGE_MS: Final = 3

_HOP: Final = LISTENING_RATE * 5 // 1000
_WINDOW: Final = LISTENING_RATE * 20 // 1000
_QUIET: Final = 120.0
"""RMS below which a window is silence."""
_PURE: Final = 0.35
"""Least part of a window's energy that lies on its pilot and its two tones."""
_CLEAR_WINDOWS: Final = 3
"""Windows in a row that agree on a symbol: half a symbol, less a window's length."""
_PAUSE_WINDOWS: Final = 30
"""150 ms without a symbol part words that were said apart."""

_SHAPE: Final = np.hanning(_WINDOW)
_PROBES: Final = _SHAPE[:, None] * np.exp(
    -2j * np.pi * np.arange(_WINDOW)[:, None] * _TONES[None, :] / LISTENING_RATE
)
_ENERGY_OF_POWER: Final = float(2 * (_SHAPE**2).sum() / _SHAPE.sum() ** 2)
"""What turns the power of a sine at its probe into the energy of the window."""

_Symbol = tuple[int, int, int]
"""Pilot, low tone, high tone."""
_NOTHING: Final[_Symbol] = (-1, -1, -1)
_PAUSE: Final = -1


def speech_ms(text: str) -> int:
    """How long a text takes to say."""
    size = len(_bytes(text))
    return LEAD_IN_MS + size * SYMBOL_MS if size else 0


def speech(text: str, sample_rate: int, *, level: int = _LEVEL) -> bytes:
    """A text as PCM; nothing for nothing. `level` is the highest amplitude."""
    data = _bytes(text)
    if not data:
        return b""
    parts = [_tones([_LEAD_IN_HERTZ], LEAD_IN_MS, sample_rate)]
    parts += [
        _tones([_PILOTS[1 + number % 2], _LOW[byte & 15], _HIGH[byte >> 4]], SYMBOL_MS, sample_rate)
        for number, byte in enumerate(data)
    ]
    pcm: bytes = (np.concatenate(parts) * level).astype("<i2").tobytes()
    return pcm


def _bytes(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode()


def _tones(hertz: list[float], milliseconds: int, sample_rate: int) -> npt.NDArray[np.float64]:
    count = sample_rate * milliseconds // 1000
    seconds = np.arange(count) / sample_rate
    sound = np.sum([np.sin(2 * np.pi * tone * seconds) for tone in hertz], axis=0) / len(hertz)
    ramp = np.minimum(1.0, np.arange(count) / (sample_rate * _EDGE_MS / 1000))
    shaped: npt.NDArray[np.float64] = sound * ramp * ramp[::-1]
    return shaped


def transcript(pcm: bytes) -> str:
    """What was said in PCM at `LISTENING_RATE`; what cannot be understood is left out.

    Words with a pause between them are parted by a space where they are written with
    spaces. A character of which a part is lost is left out.
    """
    data = b""
    phrases: list[str] = []
    for symbol in _symbols(pcm):
        if symbol == _PAUSE:
            phrases.append(data.decode("utf-8", "ignore"))
            data = b""
        else:
            data += bytes([symbol])
    phrases.append(data.decode("utf-8", "ignore"))
    return _joined(phrase for phrase in phrases if phrase)


def _joined(phrases: Iterable[str]) -> str:
    text = ""
    for phrase in phrases:
        spaced = text and text[-1].isascii() and phrase[0].isascii()
        text += (" " if spaced and not text[-1].isspace() else "") + phrase
    return text


def _symbols(pcm: bytes) -> Iterator[int]:
    """Bytes and pauses, in order."""
    quiet_for = 0
    last = _NOTHING
    for pilot, run in groupby(_windows(pcm), key=lambda window: window[0]):
        windows = list(run)
        if pilot < 0:
            quiet_for += len(windows)
            continue
        if quiet_for >= _PAUSE_WINDOWS or (pilot == 0 and len(windows) >= _CLEAR_WINDOWS):
            yield _PAUSE
            last = _NOTHING
        quiet_for = 0
        for symbol in _clear(windows):
            # The same under the same pilot is the same: a blur parted it in two.
            if symbol != last:
                yield symbol[2] << 4 | symbol[1]
            last = symbol


def _clear(windows: list[_Symbol]) -> Iterator[_Symbol]:
    """The symbols under one pilot: one, or more where a lost packet took the pilot's change."""
    for symbol, run in groupby(windows):
        if symbol[0] > 0 and len(list(run)) >= _CLEAR_WINDOWS:
            yield symbol


def _windows(pcm: bytes) -> list[_Symbol]:
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if len(samples) < _WINDOW:
        return []
    views = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.abs(views @ _PROBES) ** 2
    pilots, lows, highs = power[:, :3], power[:, 3:19], power[:, 19:]
    pilot, low, high = pilots.argmax(1), lows.argmax(1), highs.argmax(1)
    carried = pilots.max(1) + np.where(pilot == 0, 0.0, lows.max(1) + highs.max(1))
    energy = views**2 @ _SHAPE**2
    loud = (views**2).mean(1) > _QUIET**2
    understood = loud & (carried * _ENERGY_OF_POWER > _PURE * energy)
    return [
        (int(p), int(lo), int(hi)) if good else _NOTHING
        for p, lo, hi, good in zip(pilot, low, high, understood, strict=True)
    ]
