"""In what two conversations differ: what the server said, and when it began to speak."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

import attrs

from xiaozhi_trio.cli.recorded_conversation import AUDIO, HUNG_UP, Happening

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

_SPEECH_MS: Final = 500.0
_SPEECH_SHARE: Final = 0.25
"""Speech that differs by less than both in length counts as the same."""


@attrs.frozen
class Difference:
    """One thing that was not as it had been."""

    what: str
    """`missing`, `added`, `text`, `speech_length` or `first_speech`."""
    at: float
    """Seconds from the start: in the recording, for `added` in the replay."""
    kind: str
    recorded: str = ""
    replayed: str = ""

    def __str__(self) -> str:
        where = f"{self.at:9.3f} s  {self.what:13} {self.kind}"
        match self.what:
            case "missing":
                return f"{where}: {self.recorded}" if self.recorded else where
            case "added":
                return f"{where}: {self.replayed}" if self.replayed else where
        return f"{where}: {self.recorded} -> {self.replayed}"


def server_runs(happenings: Sequence[Happening]) -> list[Happening]:
    """What the server said, with packets in a row as one."""
    runs: list[Happening] = []
    for happening in happenings:
        if happening.side != "server":
            continue
        if happening.kind == AUDIO and runs and runs[-1].kind == AUDIO:
            runs[-1] = attrs.evolve(runs[-1], ms=runs[-1].ms + happening.ms)
        else:
            runs.append(happening)
    return runs


def differences(
    recorded: Sequence[Happening],
    replayed: Sequence[Happening],
    *,
    texts: bool = True,
    tolerance_ms: float | None = 250.0,
) -> list[Difference]:
    """Every difference, in the order of time.

    Without `texts` the words do not count; without `tolerance_ms` the times do not.
    What a server says over MCP is compared apart: it comes beside the conversation.
    """
    found: list[Difference] = []
    for is_mcp in (False, True):
        before, now = (
            [run for run in server_runs(side) if run.kind.startswith("mcp ") is is_mcp]
            for side in (_without_mcp(recorded, is_mcp), _without_mcp(replayed, is_mcp))
        )
        found += _compare(before, now, texts=texts)
    if tolerance_ms is not None:
        found += _delays(recorded, replayed, tolerance_ms)
    return sorted(found, key=lambda difference: difference.at)


def _without_mcp(happenings: Sequence[Happening], is_mcp: bool) -> Sequence[Happening]:
    # Speech is one run whatever was asked meanwhile.
    return [happening for happening in happenings if happening.kind.startswith("mcp ") is is_mcp]


def _compare(
    before: Sequence[Happening], now: Sequence[Happening], *, texts: bool
) -> Iterator[Difference]:
    def exactly(run: Happening) -> Hashable:
        return (run.kind, run.text if texts else "")

    for same, some, others in _blocks(before, now, exactly):
        if same:
            yield from _compare_speech(some, others)
            continue
        for alike, gone, come in _blocks(some, others, lambda run: run.kind):
            if alike:
                yield from (
                    Difference("text", old.at, old.kind, repr(old.text), repr(new.text))
                    for old, new in zip(gone, come, strict=True)
                    if texts and old.text != new.text
                )
                yield from _compare_speech(gone, come)
                continue
            yield from (Difference("missing", run.at, run.kind, _shown(run)) for run in gone)
            yield from (Difference("added", run.at, run.kind, replayed=_shown(run)) for run in come)


def _blocks(
    before: Sequence[Happening],
    now: Sequence[Happening],
    key: Callable[[Happening], Hashable],
) -> Iterator[tuple[bool, Sequence[Happening], Sequence[Happening]]]:
    matcher = SequenceMatcher(
        None, [key(run) for run in before], [key(run) for run in now], autojunk=False
    )
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        yield tag == "equal", before[start:end], now[new_start:new_end]


def _shown(run: Happening) -> str:
    if run.kind == AUDIO:
        return f"{run.ms:.0f} ms"
    if run.kind == HUNG_UP:
        return f"close code {run.text}"
    return repr(run.text) if run.text else ""


def _compare_speech(before: Sequence[Happening], now: Sequence[Happening]) -> Iterator[Difference]:
    for old, new in zip(before, now, strict=True):
        if abs(old.ms - new.ms) > max(_SPEECH_MS, _SPEECH_SHARE * old.ms):
            yield Difference("speech_length", old.at, AUDIO, _shown(old), _shown(new))


def first_speech(happenings: Sequence[Happening]) -> list[tuple[float, float]]:
    """For each `tts start` that was followed by speech: when, and how long after the device's
    last message, both s.
    """
    found = []
    asked, starting = 0.0, False
    for happening in happenings:
        if happening.side == "device":
            asked = asked if happening.kind in {AUDIO, "binary"} else happening.at
        elif happening.kind == "tts start":
            starting = True
        elif happening.kind == AUDIO and starting:
            starting = False
            found.append((happening.at, happening.at - asked))
    return found


def _delays(
    recorded: Sequence[Happening], replayed: Sequence[Happening], tolerance_ms: float
) -> Iterator[Difference]:
    for (at, before), (_, now) in zip(first_speech(recorded), first_speech(replayed), strict=False):
        if abs(now - before) * 1000 > tolerance_ms:
            yield Difference(
                "first_speech", at, "after", f"{before * 1000:.0f} ms", f"{now * 1000:.0f} ms"
            )
