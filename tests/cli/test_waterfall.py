from __future__ import annotations

from typing import Any

import attrs
import pytest

from xiaozhi_trio.cli.waterfall import waterfall
from xiaozhi_trio.telemetry.trace_record import (
    AttemptRecord,
    MarkRecord,
    StageRecord,
    TurnRecord,
)

TURN = TurnRecord(
    serial=1,
    device="aa:bb:cc:dd:ee:01",
    session="s1",
    number=3,
    occasion="spoken",
    outcome="finished",
    began_unix=1e9,
    began_ms=-1000,
    over_ms=1000,
    attempts=(
        AttemptRecord(1, speculative=True, began_ms=-600, discarded_ms=-400),
        AttemptRecord(2, speculative=True, began_ms=-200, discarded_ms=None),
    ),
    marks=(
        MarkRecord("voice_start", -1000, 0, ""),
        MarkRecord("committed_end", 0, 0, ""),
        MarkRecord("first_audio", 62, 2, ""),
        MarkRecord("interrupted", 300, 2, "noise"),
        MarkRecord("resumed", 500, 2, ""),
        MarkRecord("drained", 1000, 2, ""),
    ),
    stages=(
        StageRecord("asr", "whisper", 1, -600, -400, "cancelled", ""),
        StageRecord("asr", "whisper", 2, -200, -100, "ok", ""),
        StageRecord("tts", "kokoro", 2, -100, 100, "ok", ""),
        StageRecord("tts", "kokoro", 2, 200, 300, "failed", "timeout"),
    ),
    lengths={"transcript_characters": 9},
    left_out=0,
)
WIDTH = 22 + 24 + 2 + 40
"""Forty columns for two seconds: one is 50 ms."""


def rows(turn: TurnRecord, width: int = WIDTH) -> dict[str, str]:
    """What follows each label."""
    lines = waterfall(turn, width=width).plain.split("\n")
    return {line[2:21].strip(): line[22:].rstrip() for line in lines[1:] if line[2:21].strip()}


def test_stages_are_bars_against_time() -> None:
    shown = rows(TURN)
    assert shown == {
        "speech": "█" * 21 + " " * 19 + " 1000 ms",
        "(1) asr whisper": " " * 8 + "░" * 5 + " " * 7 + "│" + " " * 19 + " 200 ms cancelled",
        "asr whisper": " " * 16 + "█" * 3 + " │" + " " * 19 + " 100 ms",
        "tts kokoro": " " * 18 + "█" * 5 + " ▓▓▓" + " " * 13 + " 300 ms in 2 timeout",
        "device plays": " " * 20 + "│" + "█" * 6 + "   " + "█" * 10 + " 738 ms",
    }


def test_the_line_above_tells_the_turn() -> None:
    first = waterfall(TURN, width=WIDTH).plain.split("\n")[0]
    assert first.startswith("turn 3 spoken finished  ")
    assert first.endswith(
        "aa:bb:cc:dd:ee:01, first speech after 62 ms, 1 discarded, transcript_characters 9"
    )


@pytest.mark.parametrize("width", [20, 60, 100, 300])
def test_every_moment_is_told_below(width: int) -> None:
    below = waterfall(TURN, width=width).plain.split("device plays")[1].split("\n", 1)[1]
    moments = " ".join(below.split())
    for moment in (
        "voice start -1000 ms",
        "committed end 0 ms",
        "first audio 62 ms",
        "interrupted 300 ms (noise)",
        "resumed 500 ms",
        "drained 1000 ms",
    ):
        assert moment in moments
    assert not moments.endswith(",")


def test_a_wide_terminal_is_filled_and_not_exceeded() -> None:
    for line in waterfall(TURN, width=120).plain.split("\n"):
        assert len(line) <= 120


def test_a_turn_of_nothing() -> None:
    bare = attrs.evolve(
        TURN, began_ms=0, over_ms=0, attempts=(), marks=(), stages=(), lengths={}, left_out=7
    )
    assert rows(bare) == {}
    assert "7 not kept" in waterfall(bare, width=80).plain


def test_a_turn_that_was_cut_off_while_it_was_heard() -> None:
    cut = attrs.evolve(TURN, marks=(MarkRecord("first_audio", 62, 2, ""),))
    assert rows(cut)["device plays"].endswith(" 938 ms")
    assert "speech" not in rows(cut)


def test_long_times_are_seconds() -> None:
    assert "40.0 s" in waterfall(attrs.evolve(TURN, over_ms=40_000), width=80).plain


def test_what_the_server_sends_cannot_write_to_the_terminal() -> None:
    evil = "\x1b[31m\n\u202e"
    changes: dict[str, Any] = {"device": evil, "occasion": evil, "outcome": evil}
    turn = attrs.evolve(
        TURN,
        **changes,
        marks=(MarkRecord(evil, 0, 0, evil),),
        stages=(StageRecord(evil, evil, 1, 0, 1, evil, evil),),
        lengths={evil: 1},
    )
    picture = waterfall(turn, width=80)
    assert all(line.isprintable() for line in picture.plain.split("\n"))
    assert len(picture.plain.split("\n")) <= 6
