from __future__ import annotations

import pytest
import trio

from xiaozhi_trio.bench import stages
from xiaozhi_trio.testing import LoudnessDetector


@pytest.mark.sockets
async def test_each_stage_has_a_cost(monkeypatch, capsys) -> None:
    monkeypatch.setattr(stages, "build_engine", lambda *_: LoudnessDetector())
    monkeypatch.setattr(stages, "_FRAMES", 64)
    monkeypatch.setattr(stages, "_RUNS", 1)
    await stages.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = {" ".join(row[:-2]) for row in rows}
    assert {"in: WebSocket", "in: Opus decoding", "out: WebSocket", "out: outbox"} <= names
    assert all(row[-1] == "us" and float(row[-2]) >= 0 for row in rows)
    assert sum(float(row[-2]) for row in rows) > 0


async def test_the_best_run_counts(monkeypatch) -> None:
    costs = iter([0.0, 0.004, 0.1, 0.102, 0.2, 0.203, 0.3, 0.305, 0.4, 0.406])
    monkeypatch.setattr(stages, "process_time", lambda: next(costs))

    async def work() -> int:
        await trio.lowlevel.checkpoint()
        return 2

    assert await stages._best(work) == pytest.approx(1000)
