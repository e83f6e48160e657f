"""Opus both ways."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from xiaozhi_trio.audio import libopus
from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder, OpusError
from xiaozhi_trio.audio.speech_encoder import SpeechEncoder
from xiaozhi_trio.wire.messages import FRAME_DURATIONS, OPUS_RATES


def tone(seconds: float, rate: int, hertz: float = 400.0) -> bytes:
    phase = np.arange(int(seconds * rate)) * (2 * np.pi * hertz / rate)
    return (np.sin(phase) * 8000).astype(np.int16).tobytes()


def loudest_hertz(pcm: bytes, rate: int) -> float:
    samples = np.frombuffer(pcm, np.int16)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize("frame_ms", FRAME_DURATIONS)
@pytest.mark.parametrize("rate", OPUS_RATES)
def test_every_rate_and_length_survives_the_round_trip(rate, frame_ms) -> None:
    encoder, decoder = OpusEncoder(rate, frame_ms=frame_ms), OpusDecoder(16_000)
    pcm = tone(1.2, rate)
    packets = [
        encoder.encode(pcm[start : start + encoder.frame_bytes])
        for start in range(0, len(pcm) - encoder.frame_bytes + 1, encoder.frame_bytes)
    ]
    decoded = [decoder.decode(packet) for packet in packets]
    assert {len(part) for part in decoded} == {16 * frame_ms * 2}
    assert loudest_hertz(b"".join(decoded), 16_000) == pytest.approx(400, abs=5)


@pytest.mark.parametrize("packet", [b"\xff" * 4, b"\x03", b"\x02\xff\xff"])
def test_corrupt_packets_are_refused_and_the_next_is_decoded(packet) -> None:
    decoder = OpusDecoder(16_000)
    with pytest.raises(OpusError, match="corrupted"):
        decoder.decode(packet)
    encoder = OpusEncoder(16_000, frame_ms=60)
    assert len(decoder.decode(encoder.encode(bytes(encoder.frame_bytes)))) == 1920


@pytest.mark.parametrize("size", [0, 1919, 1921, 3840])
def test_an_encoder_takes_whole_frames_only(size) -> None:
    with pytest.raises(ValueError, match="one packet takes 1920"):
        OpusEncoder(16_000, frame_ms=60).encode(bytes(size))


def test_settings_that_libopus_refuses_are_an_error() -> None:
    with pytest.raises(OpusError, match="invalid argument"):
        OpusDecoder(11_025)
    with pytest.raises(OpusError, match="invalid argument"):
        OpusEncoder(11_025, frame_ms=60)
    with pytest.raises(OpusError, match="invalid argument"):
        OpusEncoder(16_000, frame_ms=60, complexity=11)


def test_native_state_is_freed(monkeypatch) -> None:
    freed = []
    opus = libopus.bindings()
    for kind in ("encoder", "decoder"):
        destroy = getattr(opus, f"opus_{kind}_destroy")
        monkeypatch.setattr(
            opus,
            f"opus_{kind}_destroy",
            lambda state, kind=kind, destroy=destroy: (freed.append(kind), destroy(state)),
        )
    encoder, decoder = OpusEncoder(16_000, frame_ms=60), OpusDecoder(16_000)
    del encoder, decoder
    gc.collect()
    assert sorted(freed) == ["decoder", "encoder"]


def test_without_libopus_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(libopus.bindings(), "PYOGG_OPUS_FILE_AVAIL", False)
    with pytest.raises(libopus.OpusMissingError, match="apt install libopusfile0"):
        OpusDecoder(16_000)


@pytest.mark.parametrize("source_rate", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("chunk_bytes", [2, 998, 10_000_000])
def test_speech_of_any_rate_and_chunking_keeps_its_length_and_pitch(
    source_rate, chunk_bytes
) -> None:
    if chunk_bytes == 2:
        chunk_bytes = 2 * (source_rate // 500)
    encoder, decoder = SpeechEncoder(24_000, frame_ms=60), OpusDecoder(24_000)
    pcm = tone(1.0, source_rate)
    packets: list[bytes] = []
    for start in range(0, len(pcm), chunk_bytes):
        packets += encoder.encode(pcm[start : start + chunk_bytes], source_rate)
    packets += encoder.flush()
    assert len(packets) == math.ceil(1000 / 60)
    decoded = b"".join(decoder.decode(packet) for packet in packets)
    assert loudest_hertz(decoded, 24_000) == pytest.approx(400, abs=5)


def test_sentences_of_different_rates_do_not_mix() -> None:
    encoder = SpeechEncoder(24_000, frame_ms=60)
    first = encoder.encode(tone(0.5, 16_000), 16_000) + encoder.flush()
    second = encoder.encode(tone(0.5, 24_000), 24_000) + encoder.flush()
    assert len(first) == len(second) == math.ceil(500 / 60)
    assert encoder.flush() == []


def test_looking_for_libopus_leaves_the_path_alone() -> None:
    script = (
        "import os; before = os.environ['PATH']; from xiaozhi_trio.audio import libopus;"
        "libopus.bindings(); assert os.environ['PATH'] == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(("platform", "told"), [("darwin", True), ("linux", False)])
def test_homebrews_libraries_are_looked_for_on_macos(monkeypatch, platform, told) -> None:
    monkeypatch.setenv("DYLD_FALLBACK_LIBRARY_PATH", "")
    monkeypatch.delenv("DYLD_FALLBACK_LIBRARY_PATH")
    monkeypatch.setattr(sys, "platform", platform)
    libopus.bindings()
    folders = os.environ.get("DYLD_FALLBACK_LIBRARY_PATH", "").split(":")
    assert ("/opt/homebrew/lib" in folders) is told
