from __future__ import annotations

import io
import re
import struct
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.engines.protocols import HIGHEST_SPEECH_RATE, LOWEST_SPEECH_RATE
from xiaozhi_trio.engines.tts.wav_stream import (
    HEADER_BYTES,
    WavError,
    WavStream,
)

SAMPLES = np.arange(-50, 50, dtype="<i2")


def chunk(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    padding = b"\0" * (len(body) & 1)
    return kind + struct.pack("<I", len(body) if size is None else size) + body + padding


def form(
    encoding: int = 1, channels: int = 1, rate: int = 24_000, bits: int = 16, more: bytes = b""
) -> bytes:
    frame = channels * bits // 8
    fields = struct.pack("<HHIIHH", encoding, channels, rate, rate * frame, frame, bits)
    return chunk(b"fmt ", fields + more)


def wav(*chunks: bytes, size: int = 0xFFFFFFFF) -> bytes:
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + b"".join(chunks)


def read(data: bytes, step: int = 1_000_000) -> tuple[bytes, int]:
    stream = WavStream()
    pcm = b"".join(stream.feed(data[at : at + step]) for at in range(0, len(data), step))
    return pcm, stream.sample_rate


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFE, None])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_streamed_headers(size: int | None, step: int) -> None:
    data = wav(form(), chunk(b"data", SAMPLES.tobytes(), size))
    assert read(data, step) == (SAMPLES.tobytes(), 24_000)


def test_a_file_by_the_wave_module() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(SAMPLES.tobytes())
    assert read(file.getvalue()) == (SAMPLES.tobytes(), 16_000)


def test_further_chunks_before_and_after_the_audio_are_left_out() -> None:
    data = wav(
        chunk(b"LIST", b"odd"),
        form(more=b"\0\0"),
        chunk(b"fact", b"\0" * 4),
        chunk(b"data", SAMPLES.tobytes()),
        chunk(b"LIST", b"tail" * 100),
    )
    for step in (1, 5, 10_000):
        assert read(data, step)[0] == SAMPLES.tobytes()


@given(st.integers(1, 30))
def test_stereo_becomes_the_mean(step: int) -> None:
    left, right = SAMPLES * 10, SAMPLES * 30
    stereo = np.column_stack([left, right]).astype("<i2").tobytes()
    pcm, _ = read(wav(form(channels=2), chunk(b"data", stereo, 0)), step)
    assert pcm == (SAMPLES * 20).astype("<i2").tobytes()


def test_loud_stereo_does_not_wrap_around() -> None:
    loud = np.full(8, 32_767, "<i2").tobytes()
    pcm, _ = read(wav(form(channels=2), chunk(b"data", loud, 0)))
    assert np.frombuffer(pcm, "<i2").tolist() == [32_767] * 4


def test_extensible_pcm() -> None:
    more = struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + b"\0" * 14
    data = wav(form(encoding=0xFFFE, more=more), chunk(b"data", SAMPLES.tobytes(), 0))
    assert read(data)[0] == SAMPLES.tobytes()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>nothing here</html>", "RIFF"),
        (b"RIFF\0\0\0\0AVI ", "RIFF and WAVE"),
        (wav(form(encoding=3, bits=32), b"data\0\0\0\0"), "0x0003 with 32 bits"),
        (wav(form(encoding=7, bits=8)), "0x0007"),
        (wav(form(bits=24)), "24 bits"),
        (wav(form(channels=6)), "6 channels"),
        (wav(form(channels=0)), "0 channels"),
        (wav(form(rate=100)), "100 Hz"),
        (wav(chunk(b"fmt ", b"\1\0")), "2 bytes"),
        (wav(chunk(b"data", b"\0\0")), "before its format"),
        (wav(chunk(b"LIST", b"", 0xFFFFFFF0)), str(HEADER_BYTES)),
    ],
)
def test_what_cannot_be_played(data: bytes, message: str) -> None:
    with pytest.raises(WavError, match=message):
        read(data)


def test_metadata_without_end_is_refused() -> None:
    data = wav(*[chunk(b"junk", b"\0" * 1000)] * (HEADER_BYTES // 1000 + 1))
    with pytest.raises(WavError, match=str(HEADER_BYTES)):
        read(data, 1000)


@given(
    st.lists(st.integers(-32_768, 32_767)),
    st.integers(LOWEST_SPEECH_RATE, HIGHEST_SPEECH_RATE),
    st.none() | st.just(0xFFFFFFFF),
    st.integers(1, 50),
)
def test_any_samples_come_back(samples: list[int], rate: int, size: int | None, step: int) -> None:
    pcm = np.array(samples, "<i2").tobytes()
    assert read(wav(form(rate=rate), chunk(b"data", pcm, size)), step) == (pcm, rate)


WHOLE = wav(form(channels=2), chunk(b"LIST", b"odd"), chunk(b"data", SAMPLES.tobytes(), 0))


@given(
    st.binary() | st.binary(max_size=30).map(lambda tail: WHOLE[:20] + tail),
    st.integers(0, len(WHOLE)),
    st.binary(max_size=4),
    st.integers(1, 50),
)
def test_any_bytes_are_taken_or_refused_however_they_are_cut(
    other: bytes, at: int, patch: bytes, step: int
) -> None:
    for data in (other, WHOLE[:at] + patch + WHOLE[at + len(patch) :]):
        try:
            whole = read(data)
        except WavError as error:
            with pytest.raises(WavError, match=re.escape(str(error))):
                read(data, step)
        else:
            assert read(data, step) == whole
