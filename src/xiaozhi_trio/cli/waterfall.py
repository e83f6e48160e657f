"""A turn as a picture for the terminal: its stages as bars against time.

What is left of the line `│` happened before the end of the speech.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from rich.text import Text

from xiaozhi_trio.telemetry.lines import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xiaozhi_trio.telemetry.trace_record import StageRecord, TurnRecord

_LABEL_WIDTH: Final = 22
_NOTE_WIDTH: Final = 24
_NARROWEST: Final = 20
"""Columns of the bars, however narrow the terminal."""
_LONGEST_MILLISECONDS: Final = 10_000
_BARS: Final = {"ok": ("█", "green"), "failed": ("▓", "red"), "cancelled": ("░", "yellow")}
_UNKNOWN_BAR: Final = ("?", "magenta")
_OUTCOMES: Final = {"finished": "green", "failed": "red"}

Span: TypeAlias = tuple[float, float]
"""Beginning and end, in milliseconds."""


@attrs.frozen
class _Scale:
    """Where a time is on the line."""

    first: float
    last: float
    width: int

    def column(self, ms: float) -> int:
        share = (ms - self.first) / max(self.last - self.first, 1.0)
        return min(max(int(share * self.width), 0), self.width - 1)


def waterfall(turn: TurnRecord, *, width: int) -> Text:
    """The turn within `width` columns, without a line break at its end."""
    columns = max(width - _LABEL_WIDTH - _NOTE_WIDTH - 2, _NARROWEST)
    times = list(_times(turn))
    scale = _Scale(min(times), max(times), columns)
    lines = [_headline(turn), *_bars(turn, scale), _axis(scale), *_moments(turn, width)]
    return Text("\n").join(lines)


def _times(turn: TurnRecord) -> Iterator[float]:
    yield from (0.0, turn.began_ms, turn.over_ms)
    for mark in turn.marks:
        yield mark.ms
    for stage in turn.stages:
        yield from (stage.began_ms, stage.ended_ms)


def _headline(turn: TurnRecord) -> Text:
    line = Text(f"turn {turn.number}", "bold")
    line.append(f" {printable(turn.occasion)} ", "default")
    line.append(printable(turn.outcome), _OUTCOMES.get(turn.outcome, "yellow"))
    facts = [time.strftime("%H:%M:%S", time.localtime(turn.began_unix)), printable(turn.device)]
    speech = _time_of(turn, "first_audio")
    if speech is not None:
        facts.append(f"first speech after {_shown(speech)}")
    discarded = sum(attempt.discarded_ms is not None for attempt in turn.attempts)
    if discarded:
        facts.append(f"{discarded} discarded")
    facts += [f"{printable(name)} {length}" for name, length in turn.lengths.items()]
    if turn.left_out:
        facts.append(f"{turn.left_out} not kept")
    return line.append("  " + ", ".join(filter(None, facts)), "dim")


def _bars(turn: TurnRecord, scale: _Scale) -> Iterator[Text]:
    voice = _time_of(turn, "voice_start")
    if voice is not None:
        spans = [(voice, 0.0, "█", "cyan")]
        yield _row("speech", spans, f"{_shown(-voice)}", scale)
    discarded = {a.number for a in turn.attempts if a.discarded_ms is not None}
    rows: dict[tuple[int, str, str], list[StageRecord]] = {}
    for stage in turn.stages:
        rows.setdefault((stage.attempt, stage.name, stage.engine), []).append(stage)
    for (attempt, name, engine), stages in rows.items():
        label = f"{name} {engine}".rstrip()
        if attempt in discarded:
            label = f"({attempt}) {label}"
        bars = [(s.began_ms, s.ended_ms, *_BARS.get(s.outcome, _UNKNOWN_BAR)) for s in stages]
        yield _row(label, bars, _note(stages), scale)
    played = _played(turn)
    if played:
        sound = sum(end - begin for begin, end in played)
        yield _row("device plays", [(*span, "█", "blue") for span in played], _shown(sound), scale)


def _note(stages: Sequence[StageRecord]) -> str:
    note = _shown(sum(stage.ended_ms - stage.began_ms for stage in stages))
    if len(stages) > 1:
        note += f" in {len(stages)}"
    bad = [stage for stage in stages if stage.outcome != "ok"]
    if bad:
        note += f" {bad[-1].category or bad[-1].outcome}"
    return note


def _played(turn: TurnRecord) -> list[Span]:
    """When the device was to be heard."""
    spans: list[Span] = []
    since: float | None = None
    for mark in sorted(turn.marks, key=lambda mark: mark.ms):
        if mark.moment in ("first_audio", "resumed"):
            since = mark.ms if since is None else since
        elif mark.moment in ("interrupted", "drained") and since is not None:
            spans.append((since, mark.ms))
            since = None
    if since is not None:
        spans.append((since, turn.over_ms))
    return spans


def _row(
    label: str, bars: Iterable[tuple[float, float, str, str]], note: str, scale: _Scale
) -> Text:
    cells: list[tuple[str, str]] = [(" ", "default")] * scale.width
    cells[scale.column(0.0)] = ("│", "dim")
    for begin, end, glyph, style in bars:
        for column in range(scale.column(begin), scale.column(end) + 1):
            cells[column] = (glyph, style)
    line = Text(f"  {_fitted(label, _LABEL_WIDTH - 3)} ")
    for glyph, style in cells:
        line.append(glyph, style)
    return line.append(f" {_fitted(note, _NOTE_WIDTH)}".rstrip(), "dim")


def _axis(scale: _Scale) -> Text:
    """The times at both ends, and 0 where there is room for it."""
    first, last = _shown(scale.first), _shown(scale.last)
    axis = list(first + " " * max(scale.width - len(first) - len(last), 1) + last)
    zero = scale.column(0.0)
    around = "".join(axis[max(zero - 1, 0) : zero + 2])
    if not around.strip():
        axis[zero] = "0"
    return Text(" " * _LABEL_WIDTH + "".join(axis), "dim")


def _moments(turn: TurnRecord, width: int) -> Iterator[Text]:
    """Every moment with its time, as many to a line as fit."""
    line = Text(" " * (_LABEL_WIDTH - 1))
    for mark in sorted(turn.marks, key=lambda mark: mark.ms):
        shown = f" {printable(mark.moment).replace('_', ' ')} {_shown(mark.ms)}"
        if mark.reason:
            shown += f" ({printable(mark.reason)})"
        if len(line) + len(shown) + 1 > width and line.plain.strip():
            yield line
            line = Text(" " * (_LABEL_WIDTH - 1))
        line.append(f"{shown},")
    if line.plain.strip():
        yield line[:-1]


def _time_of(turn: TurnRecord, moment: str) -> float | None:
    return next((mark.ms for mark in reversed(turn.marks) if mark.moment == moment), None)


def _fitted(text: str, width: int) -> str:
    text = printable(text)
    return f"{text[: width - 1]}…" if len(text) > width else text.ljust(width)


def _shown(ms: float) -> str:
    if abs(ms) >= _LONGEST_MILLISECONDS:
        return f"{ms / 1000:.1f} s"
    return f"{round(ms)} ms"
