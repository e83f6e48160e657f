"""Tone speech: what is said is understood, through Opus, through loss, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi_trio.testing.tone_speech import speech, speech_ms, transcript

RATE = 16_000
TEXTS = (
    "Hello, how are you?",
    "今天天气怎么样？",
    "Mixed 中文 and English 123 😀.",
    "aaaa bbbb",
    "ありがとう 감사합니다 ñöß",
    "~",
)


def through_opus(pcm: bytes, *, rate: int, frame_ms: int, complexity: int, lost=()) -> bytes:
    encoder = OpusEncoder(rate, frame_ms=frame_ms, complexity=complexity)
    decoder = OpusDecoder(RATE)
    pcm += bytes(rate // 5 * 2)
    pcm = pcm.ljust(-(-len(pcm) // encoder.frame_bytes) * encoder.frame_bytes, b"\0")
    packets = [
        encoder.encode(pcm[start : start + encoder.frame_bytes])
        for start in range(0, len(pcm), encoder.frame_bytes)
    ]
    kept = [packet for number, packet in enumerate(packets) if number not in lost]
    return b"".join(map(decoder.decode, kept))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("rate", "complexity"), [(16_000, 0), (24_000, 5), (48_000, 5)])
@pytest.mark.parametrize("frame_ms", [20, 40, 60])
def test_a_text_survives_opus(text: str, rate: int, complexity: int, frame_ms: int) -> None:
    sound = through_opus(speech(text, rate), rate=rate, frame_ms=frame_ms, complexity=complexity)
    assert transcript(sound) == text


@pytest.mark.parametrize("lost", [10, 20, 30])
def test_a_text_survives_a_lost_packet(lost: int) -> None:
    text = "the quick brown fox jumps over"
    pcm = speech(text, RATE)
    assert transcript(through_opus(pcm, rate=RATE, frame_ms=20, complexity=0, lost={lost})) == text


def test_what_is_lost_is_not_made_up() -> None:
    text = "the quick brown fox jumps over"
    pcm = speech(text, RATE)
    heard = transcript(
        through_opus(pcm, rate=RATE, frame_ms=60, complexity=0, lost=set(range(8, 20)))
    )
    assert heard.startswith("the qu")
    assert heard.endswith("jumps over")
    assert len(heard) < len(text) - 8


@pytest.mark.parametrize("level", [300, 3000, 20_000])
def test_noise_says_nothing(level: int) -> None:
    noise = np.random.default_rng(1).standard_normal(RATE * 10) * level
    assert transcript(noise.clip(-32768, 32767).astype("<i2").tobytes()) == ""


def test_a_hum_says_nothing() -> None:
    tone = np.sin(np.arange(RATE * 2) * 2 * np.pi * 440 / RATE) * 9000
    assert transcript(tone.astype("<i2").tobytes()) == ""


def test_silence_says_nothing() -> None:
    assert transcript(bytes(RATE)) == ""
    assert transcript(b"") == ""


def test_words_with_a_pause_between_are_parted_where_they_are_written_apart() -> None:
    pause = bytes(RATE // 2)
    assert transcript(speech("two", RATE) + pause + speech("words", RATE)) == "two words"
    assert transcript(speech("两个", RATE) + pause + speech("词", RATE)) == "两个词"
    assert transcript(speech("one ", RATE) + pause + speech("space", RATE)) == "one space"


def test_sentences_without_a_pause_are_parted_too() -> None:
    assert transcript(speech("One.", RATE) + speech("Two.", RATE)) == "One. Two."


def test_a_cut_text_keeps_its_whole_characters() -> None:
    pcm = speech("天气", RATE)
    assert transcript(pcm[: len(pcm) * 2 // 3]) == "天"


def test_the_length_is_that_of_the_sound() -> None:
    assert speech_ms("hi") == len(speech("hi", RATE)) * 500 // RATE
    assert speech_ms("") == 0
    assert speech("", RATE) == b""
