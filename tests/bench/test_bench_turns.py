"""What counts as the end of an interrupted reply."""

from __future__ import annotations

import pytest

from xiaozhi_trio.bench.light_device import Message
from xiaozhi_trio.bench.turns import AbortTimes, NotSilenced, TooShort, interruptions


def audio(at: float) -> Message:
    return Message(at, None)


def tts(at: float, state: str) -> Message:
    return Message(at, {"type": "tts", "state": state})


def test_each_interruption_is_judged_up_to_the_next_reply() -> None:
    heard = [
        tts(0, "start"), audio(1), audio(2.25), tts(2.5, "stop"), audio(3),
        tts(5, "start"), audio(6), tts(7.25, "stop"), tts(9, "start"), audio(10),
    ]  # fmt: skip
    assert interruptions([2.0, 7.0], heard) == [
        AbortTimes(stop_ms=500, last_frame_ms=1000, stray_frames=1),
        AbortTimes(stop_ms=250, last_frame_ms=0, stray_frames=0),
    ]


@pytest.mark.parametrize(
    "heard",
    [
        [],
        [tts(0, "start"), tts(3, "stop")],
        [tts(0, "start"), audio(0.5), tts(1, "stop")],
        [tts(0, "start"), audio(0.5), tts(1, "stop"), tts(1.5, "start"), tts(3, "stop")],
    ],
    ids=["nothing", "no speech", "over", "no speech of the next"],
)
def test_only_a_reply_can_be_interrupted(heard: list[Message]) -> None:
    with pytest.raises(TooShort):
        interruptions([2.0], heard)


def test_a_reply_that_goes_on_is_told() -> None:
    with pytest.raises(NotSilenced):
        interruptions([2.0], [tts(0, "start"), audio(1), audio(3)])
