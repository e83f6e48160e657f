"""Opus by itself: what its complexity costs and what it buys, and work for a profiler.

    python -m xiaozhi_trio.bench.codec compare FILE.wav …
    python -m xiaozhi_trio.bench.codec repeat --complexity 5

Packets are made as the server makes them: 60 ms at 24 kbit/s unless told otherwise.
"""

from __future__ import annotations

import wave
from time import process_time
from typing import TYPE_CHECKING, Final

import attrs
import click
import numpy as np
import soxr

from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi_trio.bench.fidelity import aligned, log_spectral_distance, segmental_snr
from xiaozhi_trio.bench.voice import voice
from xiaozhi_trio.config.settings import AudioSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RUNS: Final = 5
_FULL_SCALE: Final = 32_768.0
_AUDIO: Final = AudioSettings()


@attrs.frozen(kw_only=True)
class Coding:
    """What speech is encoded with."""

    sample_rate: int = _AUDIO.sample_rate
    complexity: int = _AUDIO.complexity
    bitrate: int = _AUDIO.bitrate
    frame_ms: int = _AUDIO.frame_ms

    def encode(self, pcm: bytes) -> list[bytes]:
        """The whole packets in `pcm`, by an encoder of their own."""
        encoder = OpusEncoder(
            self.sample_rate,
            frame_ms=self.frame_ms,
            bitrate=self.bitrate,
            complexity=self.complexity,
        )
        size = encoder.frame_bytes
        return [
            encoder.encode(pcm[start : start + size])
            for start in range(0, len(pcm) - size + 1, size)
        ]

    def decode(self, packets: Sequence[bytes]) -> bytes:
        """PCM of packets, at the rate they were encoded at."""
        decoder = OpusDecoder(self.sample_rate)
        return b"".join(map(decoder.decode, packets))


@attrs.frozen
class Judged:
    """What one coding made of some speech."""

    microseconds: float
    """CPU time to encode one packet, the best of several runs."""
    kilobits: float
    """Kilobits a second."""
    snr: float
    """Segmental signal-to-noise ratio, dB."""
    distance: float
    """Log spectral distance, dB."""


def judge(coding: Coding, clips: Sequence[bytes]) -> Judged:
    """Encode clips, PCM at the coding's rate, decode them, and compare; blocks."""
    costs, packets = [], [coding.encode(pcm) for pcm in clips]
    count = sum(map(len, packets))
    for _ in range(_RUNS):
        began = process_time()
        for pcm in clips:
            coding.encode(pcm)
        costs.append((process_time() - began) / count)
    pairs = [
        aligned(_samples(pcm), _samples(coding.decode(heard)))
        for pcm, heard in zip(clips, packets, strict=True)
    ]
    size = sum(len(packet) for clip in packets for packet in clip)
    return Judged(
        min(costs) * 1e6,
        size * 8 / (count * coding.frame_ms),
        float(np.mean([segmental_snr(*pair, coding.sample_rate) for pair in pairs])),
        float(np.mean([log_spectral_distance(*pair, coding.sample_rate) for pair in pairs])),
    )


def read_wav(file: str | Path, sample_rate: int) -> bytes:
    """PCM of a mono 16-bit WAV file at the rate wanted. Raises `ValueError`, `OSError`."""
    try:
        with wave.open(str(file), "rb") as reader:
            shape = (reader.getnchannels(), reader.getsampwidth())
            rate, pcm = reader.getframerate(), reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{file} is no WAV file: {str(error) or 'it ends early'}") from error
    if shape != (1, 2):
        raise ValueError(
            f"{file} has {shape[0]} channels of {8 * shape[1]} bits; one channel of 16 is needed"
        )
    if rate == sample_rate:
        # soxr would add its dither all the same.
        return pcm
    resampled: bytes = soxr.resample(np.frombuffer(pcm, "<i2"), rate, sample_rate).tobytes()
    return resampled


def _samples(pcm: bytes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.frombuffer(pcm, "<i2") / _FULL_SCALE


_rate = click.option(
    "--rate", type=int, default=_AUDIO.sample_rate, show_default=True, help="Opus rate in Hz."
)
_bitrate = click.option(
    "--bitrate", type=int, default=_AUDIO.bitrate, show_default=True, help="In bit/s."
)


@click.group(help=__doc__.splitlines()[0] if __doc__ else None)
def program() -> None:
    """See the module."""


@program.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@_rate
@_bitrate
def compare(files: Sequence[str], rate: int, bitrate: int) -> None:
    """Encode WAV FILES of speech at each complexity; mono, 16 bits, any rate."""
    try:
        clips = [read_wav(file, rate) for file in files]
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo("complexity  us a frame  kbit/s  segmental SNR dB  spectral distance dB")
    for complexity in range(11):
        found = judge(Coding(sample_rate=rate, complexity=complexity, bitrate=bitrate), clips)
        click.echo(
            f"{complexity:10}  {found.microseconds:10.0f}  {found.kilobits:6.1f}"
            f"  {found.snr:16.2f}  {found.distance:20.2f}"
        )


@program.command()
@_rate
@_bitrate
@click.option("--complexity", type=click.IntRange(0, 10), default=_AUDIO.complexity)
@click.option("--frames", type=click.IntRange(1, 100_000), default=200, show_default=True)
@click.option("--decode", is_flag=True, help="Decode the packets as well.")
def repeat(rate: int, bitrate: int, complexity: int, frames: int, *, decode: bool) -> None:
    """Encode a synthetic voice for a profiler to look at."""
    coding = Coding(sample_rate=rate, bitrate=bitrate, complexity=complexity)
    packets = coding.encode(voice(frames * coding.frame_ms, rate))
    if decode:
        coding.decode(packets)


if __name__ == "__main__":
    program(prog_name="python -m xiaozhi_trio.bench.codec")
