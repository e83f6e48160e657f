"""What holds in every conversation, whatever a scenario expects.

A device that is sent anything else gets stuck, stays silent or loses words; the numbers
are those of conformance items 38 and 66 to 70.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xiaozhi_trio.testing.timeline import Side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xiaozhi_trio.testing.loudspeaker import Losses
    from xiaozhi_trio.testing.scenario import RuleName
    from xiaozhi_trio.testing.timeline import Happening

LEAST_START_GAP_MS: Final = 50
"""Between `tts start` and the first audio."""


def broken_rules(happenings: Sequence[Happening], losses: Losses) -> Iterator[tuple[RuleName, str]]:
    """The rules that were broken, each with what broke it."""
    yield from _broken_order([event for event in happenings if event.side is not Side.PERSON])
    if losses.overflow:
        yield "overflow", f"{losses.overflow} packets came while the device's queue was full"
    if losses.reset:
        yield "reset", f"{losses.reset} packets came before the device was ready to speak"
    if losses.corrupt:
        yield "corrupt", f"{losses.corrupt} packets were no Opus"


def _broken_order(happenings: Sequence[Happening]) -> Iterator[tuple[RuleName, str]]:
    started_at: float | None = None
    is_silent = True
    hellos = 0
    for event in happenings:
        match event.kind:
            case "connecting" | "hang up":
                started_at, hellos = None, 0
            case "hello":
                hellos += 1
                if hellos > 1:
                    yield "hello", "the server said hello again"
            case "tts start":
                if started_at is not None:
                    yield "pairing", "tts start came twice without a tts stop"
                started_at, is_silent = event.at, True
            case "tts stop":
                started_at = None
            case "audio" if started_at is None:
                yield "audio", "audio came outside of tts start and tts stop"
            case "audio" if is_silent and started_at is not None:
                is_silent = False
                gap = round((event.at - started_at) * 1000)
                if gap < LEAST_START_GAP_MS:
                    yield "gap", f"the first audio came {gap} ms after tts start"
