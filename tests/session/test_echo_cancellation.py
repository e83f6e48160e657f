"""A device that leaves its echo to the server, with a canceller that does as it is told."""

from __future__ import annotations

import pytest

from xiaozhi_trio.session import session as session_module
from xiaozhi_trio.testing import ScriptedLanguageModel, ScriptedRecognizer

STORY = ["A rather long reply. "] * 5


class Canceller:
    """Silences whatever is stamped with a timestamp of ours, once it is trusted."""

    def __init__(self) -> None:
        self.is_trusted = True
        self.timestamps: set[int] = set()
        self.stamps: list[int] = []

    @property
    def is_learning(self) -> bool:
        return not self.is_trusted

    def sent(self, packet: bytes, timestamp: int) -> None:
        self.timestamps.add(timestamp)

    def is_needed(self, timestamp: int) -> bool:
        return timestamp > 0

    def cancel(self, pcm: bytes, timestamp: int) -> bytes:
        self.stamps.append(timestamp)
        is_echo = timestamp in self.timestamps and self.is_trusted
        return bytes(len(pcm)) if is_echo else pcm


@pytest.fixture
def canceller(monkeypatch):
    canceller = Canceller()
    monkeypatch.setattr(session_module, "EchoCanceller", lambda: canceller)
    monkeypatch.setattr(session_module, "can_cancel_echo", lambda: True)
    return canceller


async def replying(talk, *, then_hears=("other long reply. A rather",), binary_version=2):
    t = await talk(
        asr=ScriptedRecognizer("tell me a story", *then_hears),
        llm=ScriptedLanguageModel(STORY, ["Noon."]),
        binary_version=binary_version,
    )
    await t.device.hello(features={"aec": True})
    await t.device.listen("realtime")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("audio", count=5)
    return t


async def test_its_echo_is_taken_out_and_a_voice_interrupts(
    autojump_clock, talk, canceller, monkeypatch
) -> None:
    t = await replying(talk, then_hears=["what time is it?"])
    stamp = max(canceller.timestamps)
    send = t.device.send_packet

    async def stamped(packet: bytes, *, timestamp: int = 0) -> None:
        await send(packet, timestamp=stamp)

    with monkeypatch.context() as patch:
        patch.setattr(t.device, "send_packet", stamped)
        await t.device.speak(0.6)
    assert canceller.stamps
    assert set(canceller.stamps) == {stamp}
    assert not t.device.of_kind("tts stop")
    await t.device.speak(0.6)
    assert t.device.of_kind("tts stop")
    await t.device.silence(1.2)
    await t.device.wait_for("stt", count=2)


async def test_what_is_not_trusted_does_not_interrupt(autojump_clock, talk, canceller) -> None:
    canceller.is_trusted = False
    t = await replying(talk)
    await t.device.speak(0.6)
    await t.device.wait_for("tts stop")
    assert t.device.spoken_ms() > 5000


async def test_echo_heard_before_it_was_trusted_is_forgotten(
    autojump_clock, talk, canceller, monkeypatch
) -> None:
    canceller.is_trusted = False
    t = await replying(talk, then_hears=["other long reply. A rather", "what time is it?"])
    await t.device.speak(0.6)
    await t.device.silence(0.36)
    cancel = canceller.cancel

    def learn(pcm: bytes, timestamp: int) -> bytes:
        canceller.is_trusted = True
        return cancel(pcm, timestamp)

    monkeypatch.setattr(canceller, "is_needed", lambda _: True)
    monkeypatch.setattr(canceller, "cancel", learn)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert t.device.spoken_ms() > 5000
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    stt = await t.device.wait_for("stt", count=2)
    assert stt.body["text"] == "what time is it?"


async def test_frames_without_stamps_are_not_trusted(autojump_clock, talk, canceller) -> None:
    t = await replying(talk, binary_version=3)
    assert not canceller.timestamps
    await t.device.speak(0.6)
    await t.device.wait_for("tts stop")
    assert t.device.spoken_ms() > 5000


async def test_without_the_package_the_microphone_is_not_trusted(
    autojump_clock, talk, canceller, monkeypatch
) -> None:
    monkeypatch.setattr(session_module, "can_cancel_echo", lambda: False)
    t = await replying(talk)
    await t.device.speak(0.6)
    await t.device.wait_for("tts stop")
    assert not canceller.timestamps
    assert t.device.spoken_ms() > 5000
