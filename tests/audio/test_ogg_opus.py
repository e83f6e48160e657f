"""Ogg pages of Opus packets, checked by PyOgg's own reader and by FFmpeg where it is there."""

from __future__ import annotations

import importlib.util
import struct
from typing import TYPE_CHECKING

import pytest
from pyogg import OpusFile

from xiaozhi_trio.audio.ogg_opus import (
    PRE_SKIP,
    RATE,
    OggError,
    OggOpusWriter,
    packet_samples,
    read_packets,
)
from xiaozhi_trio.audio.opus import OpusEncoder, OpusError
from xiaozhi_trio.testing import Tone

if TYPE_CHECKING:
    from pathlib import Path


def tone(frame_ms: int = 60, rate: int = 16_000, count: int = 1) -> list[bytes]:
    encoder = OpusEncoder(rate, frame_ms=frame_ms)
    pcm = Tone(hertz=300.0, level=9000, ms_per_character=frame_ms).pcm(" ", rate)
    return [encoder.encode(pcm) for _ in range(count)]


def stream(packets: list[bytes]) -> bytes:
    writer = OggOpusWriter(serial=1, input_rate=16_000)
    for packet in packets:
        writer.add(packet)
    return writer.take_pages() + writer.end()


def played(tmp_path: Path, data: bytes) -> int:
    """Samples that another reader finds."""
    file = tmp_path / "played.ogg"
    file.write_bytes(data)
    return OpusFile(str(file)).buffer_length // 2


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("frame_ms", [5, 20, 40, 60, 120])
def test_packets_come_back_and_play_as_long_as_they_are(
    tmp_path: Path, rate: int, frame_ms: int
) -> None:
    packets = tone(frame_ms, rate, count=2400 // frame_ms)
    data = stream(packets)
    # The packet that carries the end mark is the last one.
    assert read_packets(data)[:-1] == packets
    assert played(tmp_path, data) == 2_400 * 48 - PRE_SKIP


def test_dtx_and_changing_lengths_keep_the_time(tmp_path: Path) -> None:
    (long,), (short,) = tone(60), tone(20)
    dtx = bytes([short[0]])
    packets = [long, short, dtx, dtx, long]
    assert played(tmp_path, stream(packets)) == (60 + 3 * 20 + 60) * 48 - PRE_SKIP


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60])
def test_a_gap_becomes_silence_of_its_length(tmp_path: Path, frame_ms: int) -> None:
    (packet,) = tone(frame_ms)
    writer = OggOpusWriter(serial=1, input_rate=16_000)
    writer.pad(RATE, like=packet)
    assert writer.position <= RATE < writer.position + RATE * 120 // 1000
    number = writer.add(packet)
    end = writer.position
    data = writer.take_pages() + writer.end()
    assert read_packets(data)[number] == packet
    assert played(tmp_path, data) == end - PRE_SKIP


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="FFmpeg is not there")
def test_ffmpeg_reads_it_too(tmp_path: Path) -> None:
    import av

    file = tmp_path / "a.ogg"
    file.write_bytes(stream(tone(count=50)))
    with av.open(str(file)) as opened:
        assert opened.streams.audio[0].codec_context.name == "opus"
        assert opened.duration == pytest.approx(3_000_000, abs=20_000)


def test_pages_hold_a_second_at_most_and_tell_their_position() -> None:
    data = stream(tone(count=50))
    positions = []
    at = 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        (position,) = struct.unpack_from("<q", data, at + 6)
        count = data[at + 26]
        at += 27 + count + sum(data[at + 27 : at + 27 + count])
        positions.append(position)
    assert positions == [0, 0, 17 * 2880, 34 * 2880, 50 * 2880]


def test_a_file_without_its_end_plays_to_its_last_page(tmp_path: Path) -> None:
    packets = tone(count=30)
    writer = OggOpusWriter(serial=1, input_rate=16_000)
    data = b""
    for packet in packets:
        writer.add(packet)
        data += writer.take_pages(everything=True)
    assert read_packets(data) == packets
    assert read_packets(data[:-10]) == packets[:-1]
    assert played(tmp_path, data) == 30 * 2880 - PRE_SKIP


def test_what_is_no_packet_is_refused() -> None:
    writer = OggOpusWriter(serial=1, input_rate=16_000)
    for garbage in (b"", b"\xff", b"\x03\x3f" + b"\x00" * 10):
        with pytest.raises(OpusError, match=f"{len(garbage)} bytes"):
            writer.add(garbage)
    assert writer.packets == 0
    assert packet_samples(tone(20)[0]) == 960


def test_what_is_no_ogg_opus_is_told() -> None:
    data = stream(tone(count=50))
    other = OggOpusWriter(serial=2, input_rate=16_000).take_pages()
    first_page = data.index(b"OggS", 4)
    for broken, problem in (
        (b"", "do not begin"),
        (b"RIFF" * 100, "belong to neither"),
        (data[first_page:], "missing"),
        (data + other, "another stream"),
        (data[:300] + b"\0" * 20 + data[320:], "belong to neither|missing"),
    ):
        with pytest.raises(OggError, match=problem):
            read_packets(broken)
