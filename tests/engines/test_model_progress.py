"""Progress in the log."""

from __future__ import annotations

import trio

from xiaozhi_trio.engines.model_progress import ModelProgress, ProgressLog


def progress(done: int) -> ModelProgress:
    return ModelProgress("m", "f.bin", done, 200, "pypi")


async def test_the_log_tells_now_and_then_and_the_bar_always(autojump_clock, log_lines) -> None:
    shown: list[ModelProgress] = []
    tell = ProgressLog(shown.append)
    for done in range(0, 100, 2):
        tell(progress(done))
        await trio.sleep(0.5)
    assert len(shown) == 50
    told = [line for line in log_lines if "fetching model" in str(line)]
    assert len(told) == 2


async def test_no_bar_is_needed(autojump_clock) -> None:
    ProgressLog()(progress(1))
