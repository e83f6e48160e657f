"""A turn's trace as it is handed to others: plain values, which JSON has.

All times are milliseconds from the end of the speech, or from the beginning of a turn
that was not spoken; what came before is negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from cattrs import transform_error
from cattrs.errors import BaseValidationError
from cattrs.preconf.orjson import make_converter

if TYPE_CHECKING:
    from xiaozhi_trio.telemetry.trace_keeper import KeptTurn

_DECIMALS: Final = 2


@attrs.frozen
class MarkRecord:
    """A moment that came."""

    moment: str
    ms: float
    attempt: int
    """0 where it is of the turn itself."""
    reason: str


@attrs.frozen
class StageRecord:
    """A piece of work."""

    name: str
    engine: str
    attempt: int
    began_ms: float
    ended_ms: float
    outcome: str
    """`ok`, `failed` or `cancelled`."""
    category: str
    """Why it failed; empty where it did not."""


@attrs.frozen
class AttemptRecord:
    """One go at an answer."""

    number: int
    speculative: bool
    began_ms: float
    discarded_ms: float | None


@attrs.frozen
class TurnRecord:
    """A turn that is over."""

    serial: int
    """Rises from turn to turn of the server's process."""
    device: str
    session: str
    number: int
    """Of the turn in its session."""
    occasion: str
    outcome: str
    began_unix: float
    """Seconds."""
    began_ms: float
    over_ms: float
    attempts: tuple[AttemptRecord, ...]
    marks: tuple[MarkRecord, ...]
    stages: tuple[StageRecord, ...]
    lengths: dict[str, int]
    left_out: int
    """Marks and stages for which there was no room."""


@attrs.frozen
class TracePage:
    """Some turns, the newest at the end."""

    serial: int
    """Of the newest turn of all; less than before after a restart."""
    devices: tuple[str, ...]
    """Whose turns are kept, the one heard of last at the end."""
    turns: tuple[TurnRecord, ...]


class PageMalformed(ValueError):
    """What came is no page of traces; the text says in what."""


def record_of(turn: KeptTurn) -> TurnRecord:
    """A trace that was concluded, for others to read."""
    trace = turn.trace
    origin = trace.origin

    def ms(at: float | None) -> float:
        return round(((origin if at is None else at) - origin) * 1000, _DECIMALS)

    return TurnRecord(
        serial=turn.serial,
        device=trace.device,
        session=trace.session,
        number=trace.number,
        occasion=trace.occasion,
        outcome=trace.outcome,
        began_unix=round(trace.began_unix, 3),
        began_ms=ms(trace.began),
        over_ms=ms(trace.concluded_at),
        attempts=tuple(
            AttemptRecord(
                number=attempt.number,
                speculative=attempt.speculative,
                began_ms=ms(attempt.began),
                discarded_ms=None if attempt.discarded_at is None else ms(attempt.discarded_at),
            )
            for attempt in trace.attempts
        ),
        marks=tuple(
            MarkRecord(mark.moment.value, ms(mark.at), mark.attempt, mark.reason)
            for mark in trace.marks
        ),
        stages=tuple(
            StageRecord(
                name=stage.name,
                engine=stage.engine,
                attempt=stage.attempt,
                began_ms=ms(stage.began),
                ended_ms=ms(stage.ended),
                outcome=stage.outcome.value,
                category=stage.category,
            )
            for stage in trace.stages
        ),
        lengths=dict(trace.lengths),
        left_out=trace.left_out,
    )


def to_json(page: TracePage) -> bytes:
    """The page as one JSON object."""
    return _converter.dumps(page)


def turn_to_json(turn: TurnRecord) -> bytes:
    """One turn as one JSON object on one line."""
    return _converter.dumps(turn)


def from_json(text: bytes) -> TracePage:
    """The page that `to_json` wrote. Raises `PageMalformed`."""
    try:
        return _converter.loads(text, TracePage)
    except BaseValidationError as error:
        raise PageMalformed("; ".join(transform_error(error, path="page"))) from error
    except ValueError as error:
        raise PageMalformed(f"no JSON: {error}") from error


_converter: Final = make_converter()
