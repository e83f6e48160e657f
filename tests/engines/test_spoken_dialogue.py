"""People speak to the real server with its real models and are answered in speech.

What they say is synthesised by a voice that never answers, streamed as Opus in real
time, and what the server says is recognised again: error rates are bounds on the whole
chain, not figures of a model.
"""

from __future__ import annotations

import unicodedata
import wave
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pytest
import soxr
import trio

from xiaozhi_trio.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi_trio.config.engines import KokoroSettings, WhisperSettings
from xiaozhi_trio.config.settings import PlayoutSettings
from xiaozhi_trio.engines.asr.whisper import WhisperRecognizer
from xiaozhi_trio.engines.language import has_chinese
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import LISTENING_RATE
from xiaozhi_trio.engines.tts.kokoro import KokoroSynthesizer
from xiaozhi_trio.testing import SimulatedDevice
from xiaozhi_trio.testing.server_process import ServerProcess, server_process
from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

pytestmark = [pytest.mark.models, pytest.mark.sockets]

SHORT_REPLIES = """
[llm.llama]
temperature = 0.0
max_tokens = 24
"""

VOICE = "zm_yunxi"
"""Kokoro's, in both languages; the server answers with other voices."""

CAPITAL_OF_FRANCE = "What is the capital of France?"
CAPITAL_OF_CHINA = "中国的首都是哪里？"
SENTENCES = (CAPITAL_OF_FRANCE, CAPITAL_OF_CHINA)

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
READ_ALOUD = "sense_and_sensibility_01_austen_64kb-0880"
READ_ALOUD_TEXT = "he was not an ill disposed young man"

PACKET_MS = 60
END_SILENCE_SECONDS = 1.2
TURN_SECONDS = 60.0
"""From the end of a question to the end of its answer; far more than is ever needed."""
JITTER_SECONDS = 0.15
"""How late a busy machine may notice a packet."""


def words(text: str) -> list[str]:
    """Chinese characters one by one, other words whole, without case and punctuation."""
    spaced = "".join(
        f" {letter} " if has_chinese(letter) else letter if letter.isalnum() else " "
        for letter in unicodedata.normalize("NFKC", text.replace("'", "")).lower()
    )
    return spaced.split()


def error_rate(heard: str, said: str) -> float:
    """Words (characters, in Chinese) to insert, delete or replace, per word said."""
    expected = words(said)
    distances = list(range(len(expected) + 1))
    for row, word in enumerate(words(heard), start=1):
        diagonal, distances[0] = distances[0], row
        for column, other in enumerate(expected, start=1):
            diagonal, distances[column] = (
                distances[column],
                min(distances[column] + 1, distances[column - 1] + 1, diagonal + (word != other)),
            )
    return distances[-1] / len(expected)


def model_store() -> ModelStore:
    return ModelStore(default_model_directory(), sources=("hub", "registry"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("server"), SHORT_REPLIES) as process:
        yield process


@pytest.fixture(scope="module")
def speech() -> Mapping[str, bytes]:
    """PCM at `LISTENING_RATE` of every sentence that is said to the server."""

    async def synthesise() -> Mapping[str, bytes]:
        engine = KokoroSynthesizer(KokoroSettings(voice_zh=VOICE, voice_en=VOICE), model_store())
        await engine.load()
        try:
            return {sentence: await spoken(engine, sentence) for sentence in SENTENCES}
        finally:
            await engine.aclose()

    return trio.run(synthesise)


async def spoken(engine: KokoroSynthesizer, sentence: str) -> bytes:
    async with engine.synthesize(sentence) as chunks:
        made = [chunk async for chunk in chunks]
    samples = np.frombuffer(b"".join(chunk.pcm for chunk in made), np.int16)
    pcm: bytes = soxr.resample(samples, made[0].sample_rate, LISTENING_RATE).tobytes()
    return pcm


@pytest.fixture
async def recognizer() -> AsyncIterator[WhisperRecognizer]:
    engine = WhisperRecognizer(WhisperSettings(workers=1), model_store())
    await engine.load()
    yield engine
    await engine.aclose()


@attrs.frozen
class Answer:
    """What a device got for a question, from the server's hello on."""

    device: SimulatedDevice
    asked_at: float
    """When the last packet with voice was sent, Trio time."""

    @property
    def transcript(self) -> str:
        (stt,) = self.device.of_kind("stt")
        text: str = stt.body["text"]
        return text

    @property
    def sentences(self) -> Sequence[str]:
        return [event.body["text"] for event in self.device.of_kind("tts sentence_start")]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    def pcm(self, sample_rate: int) -> list[bytes]:
        """The speech, packet by packet."""
        decoder = OpusDecoder(sample_rate)
        return [decoder.decode(event.packet or b"") for event in self.device.of_kind("audio")]


@asynccontextmanager
async def connected(
    server: ServerProcess, *, binary_version: int = 1
) -> AsyncIterator[SimulatedDevice]:
    async with (
        dial(
            server.websocket_url,
            device_id=f"02:00:00:00:00:{binary_version:02x}",
            client_id="dialogue",
            binary_version=binary_version,
        ) as link,
        trio.open_nursery() as nursery,
    ):
        device = SimulatedDevice(link, binary_version=binary_version)
        nursery.start_soon(device.listen_to_server)
        yield device
        nursery.cancel_scope.cancel()


async def ask(device: SimulatedDevice, pcm: bytes, *, mode: str = "auto") -> Answer:
    """Say hello, speak in real time and wait for the whole answer."""
    await device.hello()
    await device.listen(mode)
    encoder = OpusEncoder(LISTENING_RATE, frame_ms=PACKET_MS)
    due = trio.current_time()
    for start in range(0, len(pcm), encoder.frame_bytes):
        frame = pcm[start : start + encoder.frame_bytes].ljust(encoder.frame_bytes, b"\0")
        await device.send_packet(encoder.encode(frame))
        due += PACKET_MS / 1000
        await trio.sleep_until(due)
    asked_at = trio.current_time()
    if mode == "manual":
        await device.stop_listening()
    else:
        await device.silence(END_SILENCE_SECONDS)
    with trio.fail_after(TURN_SECONDS):
        await device.wait_for("tts stop")
    return Answer(device, asked_at)


def check_order(answer: Answer) -> None:
    kinds = answer.device.kinds
    assert kinds[:4] == ["hello", "stt", "tts start", "llm"]
    assert kinds[4:-1] == ["tts sentence_start", "audio"] * len(answer.sentences)
    assert kinds[-1] == "tts stop"


def check_pacing(answer: Answer) -> None:
    """Every packet as long as promised, none too early for a device's queue, `tts stop` last."""
    promised = answer.device.of_kind("hello")[0].body["audio_params"]
    sample_rate = promised["sample_rate"]
    packet_seconds = promised["frame_duration"] / 1000
    assert {len(pcm) // 2 for pcm in answer.pcm(sample_rate)} == {sample_rate * packet_seconds}

    packets = answer.device.of_kind("audio")
    lead = PlayoutSettings().lead_ms / 1000 + JITTER_SECONDS
    played_until = packets[0].at
    for packet in packets:
        played_until = max(played_until, packet.at) + packet_seconds
        assert played_until - packet.at <= lead
    assert answer.device.of_kind("tts stop")[0].at >= played_until


@pytest.mark.parametrize(
    ("question", "keyword"),
    [(CAPITAL_OF_FRANCE, "Paris"), (CAPITAL_OF_CHINA, "北京")],
    ids=["English", "Mandarin"],
)
async def test_a_question_is_understood_and_answered_in_its_language(
    server: ServerProcess,
    speech: Mapping[str, bytes],
    recognizer: WhisperRecognizer,
    question: str,
    keyword: str,
) -> None:
    async with connected(server) as device:
        answer = await ask(device, speech[question])
    assert error_rate(answer.transcript, question) <= 0.2
    assert keyword in answer.text
    assert has_chinese(answer.text) == has_chinese(question)
    check_order(answer)
    check_pacing(answer)
    heard = await recognizer.transcribe(b"".join(answer.pcm(LISTENING_RATE)))
    assert error_rate(heard.text, answer.text) <= 0.25


async def test_speech_in_framing_2_is_answered_in_framing_2(
    server: ServerProcess, speech: Mapping[str, bytes]
) -> None:
    async with connected(server, binary_version=2) as device:
        answer = await ask(device, speech[CAPITAL_OF_FRANCE])
    assert error_rate(answer.transcript, CAPITAL_OF_FRANCE) <= 0.2
    check_order(answer)
    check_pacing(answer)
    stamps = [event.timestamp for event in device.of_kind("audio")]
    assert stamps[0] > 0
    assert all(earlier < later for earlier, later in pairwise(stamps))


async def test_a_button_turn_in_framing_3_is_answered_only_when_the_button_is_released(
    server: ServerProcess, speech: Mapping[str, bytes]
) -> None:
    pause = bytes(LISTENING_RATE * 2)
    async with connected(server, binary_version=3) as device:
        answer = await ask(device, speech[CAPITAL_OF_CHINA] + pause, mode="manual")
    assert device.of_kind("stt")[0].at > answer.asked_at
    assert error_rate(answer.transcript, CAPITAL_OF_CHINA) <= 0.2
    check_order(answer)
    check_pacing(answer)


@pytest.fixture
def recording() -> bytes:
    path = LIBRIVOX / f"{READ_ALOUD}.wav"
    if not path.exists():
        pytest.skip("needs Debian's package pocketsphinx-testdata")
    with wave.open(str(path)) as file:
        assert file.getframerate() == LISTENING_RATE
        return file.readframes(file.getnframes())


async def test_a_human_voice_is_understood(server: ServerProcess, recording: bytes) -> None:
    async with connected(server) as device:
        answer = await ask(device, recording)
    assert error_rate(answer.transcript, READ_ALOUD_TEXT) <= 0.2
    assert words(answer.text)
    check_order(answer)
