from __future__ import annotations

import numpy as np
import pytest

from xiaozhi_trio.audio.opus import OpusDecoder
from xiaozhi_trio.bench.foresight import packets_to_barge_ins, packets_to_the_end
from xiaozhi_trio.bench.script import Script
from xiaozhi_trio.bench.voice import UPLINK_FRAME_MS, UPLINK_RATE, question, voice
from xiaozhi_trio.config.settings import ListeningSettings
from xiaozhi_trio.testing import LoudnessDetector


def test_the_voice_is_the_same_each_time_and_as_long_as_asked() -> None:
    pcm = voice(500, UPLINK_RATE)
    assert len(pcm) == UPLINK_RATE
    voice.cache_clear()
    assert voice(500, UPLINK_RATE) == pcm
    assert np.abs(np.frombuffer(pcm, "<i2")).max() > 5000


def test_a_question_is_voice_and_then_silence() -> None:
    asked, decoder = question(600, silent_ms=600), OpusDecoder(UPLINK_RATE)
    assert asked.voiced_packets == 10
    assert len(asked.packets) == 20
    assert asked.voiced_seconds == pytest.approx(0.6)
    levels = [
        np.abs(np.frombuffer(decoder.decode(packet), "<i2").astype(int)).mean()
        for packet in asked.packets
    ]
    assert min(levels[1:9]) > 100 * max(levels[12:])


async def test_the_end_of_the_question_is_found_in_advance() -> None:
    settings = ListeningSettings(end_silence_ms=600)
    found = await packets_to_the_end(settings, LoudnessDetector(), question())
    assert found is not None
    silence = (found - question().voiced_packets) * UPLINK_FRAME_MS
    assert 540 <= silence <= 720


async def test_an_end_that_never_comes_is_none() -> None:
    deaf = LoudnessDetector(threshold=40_000)
    assert await packets_to_the_end(ListeningSettings(), deaf, question()) is None


async def test_a_pause_that_is_too_short_is_no_end() -> None:
    settings = ListeningSettings(end_silence_ms=600)
    hesitant = question(600, 300, 600)
    assert hesitant.voiced_packets == 25
    found = await packets_to_the_end(settings, LoudnessDetector(), hesitant)
    assert found is not None
    assert found > hesitant.voiced_packets


async def test_interruptions_are_found_in_advance() -> None:
    settings = ListeningSettings(end_silence_ms=600, barge_in_ms=120)
    said = question(600, 1800, 600, 300, 600, 1800, 600)
    found = await packets_to_barge_ins(settings, LoudnessDetector(), said)
    interruptions = [2400, 2400 + 1500 + 1800]
    assert len(found) == len(interruptions)
    for packets, begins_ms in zip(found, interruptions, strict=True):
        voice_ms = packets * UPLINK_FRAME_MS - begins_ms
        assert 120 <= voice_ms <= 120 + 2 * UPLINK_FRAME_MS


async def test_voice_too_short_to_interrupt_is_no_interruption() -> None:
    settings = ListeningSettings(end_silence_ms=600, barge_in_ms=500)
    said = question(600, 1800, 300, 1800, 300)
    assert await packets_to_barge_ins(settings, LoudnessDetector(), said) == []


def test_what_ends_with_a_pause_is_refused() -> None:
    with pytest.raises(ValueError, match="end with voice"):
        question(600, 300)


def test_the_script_knows_what_it_takes_before_speech() -> None:
    script = Script(recognition_ms=1, first_token_ms=10, token_ms=100, synthesis_ms=1000)
    words = len("Once upon a time there was a little server.".split())
    first_sentence = words * 100
    assert script.ms_before_speech(0) in {
        1 + 10 + first_sentence + 1000,
        1 + 10 + first_sentence - 100 + 1000,
    }
    assert Script(recognition_ms=1, first_token_ms=0, synthesis_ms=0).ms_before_speech(60) == 61
