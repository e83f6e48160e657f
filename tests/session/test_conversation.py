"""Turns as a device lives through them, on a virtual clock."""

from __future__ import annotations


async def test_a_spoken_question_is_answered_in_speech(autojump_clock, talk) -> None:
    t = await talk()
    await t.device.hello()
    await t.device.listen("auto")
    await t.device.speak(1.0)
    await t.device.silence(1.2)
    await t.device.wait_for("tts stop")
    assert t.device.kinds == [
        "hello",
        "stt",
        "tts start",
        "llm",
        "tts sentence_start",
        "audio",
        "tts stop",
    ]
