"""A voice detector that others wrote, as a microphone uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from xiaozhi_trio.engines.detection import CheckedDetection
from xiaozhi_trio.engines.edge import EngineBug
from xiaozhi_trio.engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.define
class Odd:
    """A detector that is its own stream."""

    answer: Any = attrs.field(factory=list)
    window_samples: Any = 512
    reset_error: Exception | None = None
    name: str = "odd"
    opened: int = 0

    async def load(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    def open_stream(self) -> Odd:
        self.opened += 1
        return self

    async def accept(self, pcm: bytes) -> Sequence[float]:
        await trio.lowlevel.checkpoint()
        answer: Sequence[float] = self.answer
        return answer

    def reset(self) -> None:
        if self.reset_error is not None:
            raise self.reset_error


async def test_what_it_finds_passes() -> None:
    stream = CheckedDetection(Odd([1, 0.25]))
    assert stream.window_samples == 512
    assert await stream.accept(b"") == [1.0, 0.25]


@pytest.mark.parametrize("answer", [None, 0.5, ["loud"], [None]])
async def test_what_is_no_probability_is_a_bug(answer: Any) -> None:
    with pytest.raises(EngineBug, match="odd: judging audio raised"):
        await CheckedDetection(Odd(answer)).accept(b"")


@pytest.mark.parametrize("size", [0, -1, None, 0.5])
def test_no_window_is_that_small(size: Any) -> None:
    with pytest.raises(EngineError, match=r"odd: windows of .* samples came"):
        CheckedDetection(Odd(window_samples=size))


async def test_the_next_audio_tells_what_failed_in_a_reset_and_begins_anew() -> None:
    odd = Odd([1.0], reset_error=ValueError("cannot forget"))
    stream = CheckedDetection(odd)
    stream.reset()
    with pytest.raises(EngineError, match="cannot forget"):
        await stream.accept(b"")
    assert odd.opened == 2
    odd.reset_error = None
    stream.reset()
    assert await stream.accept(b"") == [1.0]
