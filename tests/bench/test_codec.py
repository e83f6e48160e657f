from __future__ import annotations

import wave
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from xiaozhi_trio.bench import codec
from xiaozhi_trio.bench.codec import Coding, judge, program, read_wav
from xiaozhi_trio.bench.voice import voice

if TYPE_CHECKING:
    from pathlib import Path


def write(file: Path, pcm: bytes, *, rate: int = 16_000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(file), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.wav", voice(900, 16_000))


def test_more_bits_are_heard() -> None:
    clips = [voice(1200, 16_000)]
    poor, good = (judge(Coding(sample_rate=16_000, bitrate=bits), clips) for bits in (8000, 48_000))
    assert good.snr > poor.snr + 3
    assert good.distance < poor.distance
    assert good.kilobits > 2 * poor.kilobits
    assert poor.microseconds > 0


def test_whole_packets_are_encoded_and_decoded_to_their_length() -> None:
    coding = Coding(sample_rate=16_000)
    packets = coding.encode(voice(250, 16_000))
    assert len(packets) == 4
    assert len(coding.decode(packets)) == 4 * 60 * 16 * 2


def test_a_file_is_read_at_the_rate_wanted(clip: Path) -> None:
    assert read_wav(clip, 16_000) == voice(900, 16_000)
    samples = np.frombuffer(read_wav(clip, 24_000), "<i2")
    assert len(samples) == pytest.approx(900 * 24, abs=2)


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    stereo = write(tmp_path / "stereo.wav", bytes(400), channels=2)
    with pytest.raises(ValueError, match=r"stereo.wav has 2 channels of 16 bits; one channel"):
        read_wav(stereo, 16_000)
    for content in (b"RIFX" + bytes(60), b"RIFF"):
        (tmp_path / "odd.wav").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd.wav is no WAV file: \S"):
            read_wav(tmp_path / "odd.wav", 16_000)


def test_the_table_has_a_line_for_each_complexity(clip: Path, monkeypatch) -> None:
    monkeypatch.setattr(codec, "_RUNS", 1)
    told = CliRunner().invoke(program, ["compare", "--rate", "16000", str(clip)])
    assert told.exit_code == 0, told.output
    rows = [line.split() for line in told.output.splitlines()[1:]]
    assert [row[0] for row in rows] == [str(complexity) for complexity in range(11)]
    assert all(float(value) > 0 for row in rows for value in row[1:])


def test_the_table_names_a_file_it_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "odd.wav").write_bytes(b"RIFF")
    told = CliRunner().invoke(program, ["compare", str(tmp_path / "odd.wav")])
    assert told.exit_code == 1
    assert "odd.wav is no WAV file" in told.output


@pytest.mark.parametrize("decoding", [[], ["--decode"]])
def test_work_for_a_profiler(decoding: list[str], monkeypatch) -> None:
    worked: list[tuple[str, int]] = []
    encode, decode = Coding.encode, Coding.decode

    def count_encoded(coding: Coding, pcm: bytes) -> list[bytes]:
        packets = encode(coding, pcm)
        worked.append((f"encode {coding.complexity}", len(packets)))
        return packets

    def count_decoded(coding: Coding, packets: list[bytes]) -> bytes:
        worked.append(("decode", len(packets)))
        return decode(coding, packets)

    monkeypatch.setattr(Coding, "encode", count_encoded)
    monkeypatch.setattr(Coding, "decode", count_decoded)
    told = CliRunner().invoke(program, ["repeat", "--complexity", "0", "--frames", "7", *decoding])
    assert told.exit_code == 0, told.output
    assert worked == [("encode 0", 7)] + [("decode", 7)] * len(decoding)
