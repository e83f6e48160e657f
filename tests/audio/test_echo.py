"""The canceller in a simulated room: what a device records while it plays what it was sent."""

from __future__ import annotations

from collections import deque

import attrs
import numpy as np
import pytest

from xiaozhi_trio.audio.echo import EchoCanceller, can_cancel_echo
from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder

pytestmark = pytest.mark.skipif(not can_cancel_echo(), reason="needs the extra aec")

RATE = 16_000
PACKET_MS = 60
PACKET = RATE * PACKET_MS // 1000


def babble(seconds: float, *, seed: int, level: float = 3000.0) -> np.ndarray:
    """Noise that comes and goes as syllables do, with little above 2 kHz."""
    random = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    noise = np.convolve(random.standard_normal(samples), np.hanning(9), "same")
    envelope = np.repeat(random.uniform(0, 1, samples // 1600 + 1), 1600)[:samples]
    envelope = np.convolve(envelope, np.hanning(800) / 400, "same")
    sound = noise * envelope
    return sound * (level / np.sqrt(np.mean(sound**2)))


def packets(sound: np.ndarray) -> list[bytes]:
    encoder = OpusEncoder(RATE, frame_ms=PACKET_MS, bitrate=24_000)
    whole = len(sound) // PACKET * PACKET
    samples = np.clip(sound[:whole], -32768, 32767).astype("<i2")
    return [encoder.encode(frame.tobytes()) for frame in samples.reshape(-1, PACKET)]


def heard(stream: list[bytes]) -> np.ndarray:
    decoder = OpusDecoder(RATE)
    return np.frombuffer(b"".join(map(decoder.decode, stream)), "<i2").astype(float)


def loudness_db(sound: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(sound**2)) + 1e-3))


@attrs.frozen
class Room:
    """From the loudspeaker to the microphone."""

    delay_ms: int = 90
    gain: float = 0.4
    distortion: float = 0.3

    def echo(self, played: np.ndarray) -> np.ndarray:
        loudspeaker = np.tanh(played / 32768 * 2 * self.distortion) / (2 * self.distortion) * 32768
        taps = RATE // 5
        decay = np.random.default_rng(3).standard_normal(taps) * 10 ** (-3 * np.arange(taps) / taps)
        decay[0] = 8
        echo = np.convolve(loudspeaker, decay / np.sqrt(np.sum(decay**2)))[: len(played)]
        late = np.zeros(RATE * self.delay_ms // 1000)
        return np.concatenate([late, echo])[: len(played)] * self.gain


def cleaned(
    reply: np.ndarray,
    *,
    voice: np.ndarray | float = 0.0,
    room: Room = Room(),
    stamps: str = "prompt",
    canceller: EchoCanceller | None = None,
    first_timestamp: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """What a device recorded, and what is left of it, while it played the reply."""
    canceller = canceller or EchoCanceller()
    down = packets(reply)
    times = [first_timestamp + PACKET_MS * number for number in range(len(down))]
    up = packets(room.echo(heard(down)) + voice)
    waiting: deque[int] = deque(maxlen=3)
    decoder = OpusDecoder(RATE)
    before, after = [], []
    sent = 0
    for number, packet in enumerate(up):
        while sent < min(number + 4, len(down)):
            canceller.sent(down[sent], times[sent])
            sent += 1
        waiting.append(times[number])
        stamp = 0
        on_time = {"prompt": True, "late": number >= 2, "wavering": number % 5 != 3}
        if on_time.get(stamps):
            stamp = waiting.popleft()
        elif stamps == "foreign":
            stamp = 7_000_000 + number
        recorded = decoder.decode(packet)
        left = canceller.cancel(recorded, stamp) if canceller.is_needed(stamp) else recorded
        assert len(left) == len(recorded)
        before.append(recorded)
        after.append(left)
    return tuple(np.frombuffer(b"".join(each), "<i2").astype(float) for each in (before, after))


@pytest.mark.parametrize("stamps", ["prompt", "late", "wavering"])
@pytest.mark.parametrize("room", [Room(delay_ms=30), Room(delay_ms=150, gain=1.0, distortion=1.2)])
def test_an_echo_is_gone(room: Room, stamps: str) -> None:
    recorded, left = cleaned(babble(6, seed=1), room=room, stamps=stamps)
    learnt = slice(3 * RATE, None)
    assert loudness_db(recorded[learnt]) - loudness_db(left[learnt]) > 20
    assert np.max(np.abs(left[learnt])) < 500


def test_what_is_not_understood_stays_as_it_is() -> None:
    """A steady tone has no beginning by which its echo could be found."""
    canceller = EchoCanceller()
    tone = 6000 * np.sin(np.arange(int(4.2 * RATE)) * 2 * np.pi * 440 / RATE)
    voice = babble(4.2, seed=2, level=4000)
    recorded, left = cleaned(tone, voice=voice, canceller=canceller)
    assert canceller.is_aligned
    assert not canceller.is_trusted
    assert np.array_equal(recorded, left)


def test_a_device_whose_echo_cannot_be_heard_is_trusted() -> None:
    canceller = EchoCanceller()
    cleaned(babble(2, seed=1), room=Room(gain=0.0), canceller=canceller)
    assert canceller.is_trusted


def test_an_echo_that_is_not_weakened_any_more_is_not_trusted_any_more() -> None:
    canceller = EchoCanceller()
    cleaned(babble(4, seed=1), canceller=canceller)
    assert canceller.is_trusted
    cleaned(
        babble(4, seed=5),
        voice=babble(3.96, seed=6, level=6000),
        canceller=canceller,
        first_timestamp=1 + 70 * PACKET_MS,
    )
    assert canceller.is_aligned
    assert not canceller.is_trusted


def test_stamps_that_leap_are_learnt_anew() -> None:
    canceller = EchoCanceller()
    cleaned(babble(4, seed=1), canceller=canceller)
    assert canceller.is_trusted
    canceller.cancel(bytes(PACKET * 2), 1 + 20 * PACKET_MS)
    assert canceller.is_aligned
    assert not canceller.is_trusted


def test_a_voice_beside_the_echo_stays() -> None:
    voice = np.zeros(6 * RATE)
    voice[3 * RATE : 5 * RATE] = babble(2, seed=2, level=2000)
    _, left = cleaned(babble(6, seed=1), voice=voice)
    assert loudness_db(left[3 * RATE : 5 * RATE]) > loudness_db(voice[3 * RATE : 5 * RATE]) - 8
    assert loudness_db(left[2 * RATE : 3 * RATE]) < 45


def test_a_voice_after_the_reply_is_untouched_once_the_room_is_silent() -> None:
    canceller = EchoCanceller()
    cleaned(babble(2, seed=1), canceller=canceller)
    silence = bytes(PACKET * 2)
    unstamped = 0
    while canceller.is_needed(0):
        canceller.cancel(silence, 0)
        unstamped += PACKET_MS
    assert 1000 <= unstamped <= 1600
    assert not canceller.is_aligned


def test_a_second_reply_is_found_by_its_stamps() -> None:
    canceller = EchoCanceller()
    cleaned(babble(3, seed=1), canceller=canceller)
    for _ in range(60):
        canceller.cancel(bytes(PACKET * 2), 0)
    recorded, left = cleaned(babble(3, seed=5), canceller=canceller, first_timestamp=9_000)
    assert canceller.is_aligned
    for first in (RATE // 4, RATE // 2, 2 * RATE):
        assert loudness_db(recorded[:first]) - loudness_db(left[:first]) > 20


def test_speech_long_gone_is_forgotten() -> None:
    canceller = EchoCanceller()
    cleaned(babble(12, seed=1), canceller=canceller)
    assert len(canceller._speech) <= 8 * RATE * 2
    assert len(canceller._starts) <= 8000 // PACKET_MS + 1


@pytest.mark.parametrize("stamps", ["never", "foreign"])
def test_without_stamps_of_ours_nothing_is_trusted_and_nothing_changed(stamps: str) -> None:
    canceller = EchoCanceller()
    recorded, left = cleaned(babble(2, seed=1), stamps=stamps, canceller=canceller)
    assert not canceller.is_aligned
    assert np.array_equal(recorded, left)


def test_a_corrupt_packet_does_no_harm() -> None:
    canceller = EchoCanceller()
    canceller.sent(b"\xff\xff\xff", 1)
    assert canceller.cancel(bytes(1920), 1) == bytes(1920)
    assert not canceller.is_aligned


@pytest.mark.parametrize("milliseconds", [0, 20, 40, 60, 120])
def test_any_length_is_kept(milliseconds: int) -> None:
    canceller = EchoCanceller()
    canceller.sent(packets(babble(0.06, seed=1))[0], 1)
    assert len(canceller.cancel(bytes(32 * milliseconds), 1)) == 32 * milliseconds


def test_undecoded_packets_are_bounded() -> None:
    canceller = EchoCanceller()
    packet = packets(babble(0.06, seed=1))[0]
    for number in range(10_000):
        canceller.sent(packet, 1 + number)
    assert len(canceller._undecoded) == 128
