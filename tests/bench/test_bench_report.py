from __future__ import annotations

import io
import json

from rich.console import Console

from xiaozhi_trio.bench.figures import Figure
from xiaozhi_trio.bench.report import as_json, table
from xiaozhi_trio.bench.run import Result


def result(number: int, *figures: Figure, failure: str | None = None) -> Result:
    return Result(
        target="xiaozhi-trio",
        scenario="burst",
        devices=50,
        round=number,
        figures=figures,
        failure=failure,
    )


def printed(*results: Result) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(results))
    return console.file.getvalue()


def test_rounds_are_one_row_with_their_median() -> None:
    rounds = [
        result(number, Figure.of("latency", "ms", [value, value, 1000]))
        for number, value in enumerate((10, 30, 20), start=1)
    ]
    (row,) = [line for line in printed(*rounds).splitlines() if "latency" in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[1:] == ["burst, 50 devices", "latency", "ms", "9", "20", "1000", "1000", "1000"]


def test_a_single_value_has_no_percentiles() -> None:
    text = printed(result(1, Figure.of("threads more", "", [3])))
    (row,) = [line for line in text.splitlines() if "threads more" in line]
    assert [cell.strip() for cell in row.split("│")[5:-1]] == ["", "3", "", "", ""]


def test_a_failed_round_is_named() -> None:
    text = printed(result(1, Figure.of("x", "ms", [1])), result(2, failure="it fell over"))
    assert "no figures in round 2" in text


def test_json_holds_every_round() -> None:
    body = json.loads(as_json([result(1, Figure.of("x", "ms", [])), result(2, failure="no")]))
    assert [entry["round"] for entry in body["results"]] == [1, 2]
    assert body["results"][0]["figures"] == [
        {
            "name": "x",
            "unit": "ms",
            "count": 0,
            "p50": None,
            "p95": None,
            "p99": None,
            "max": None,
        }
    ]
    assert body["results"][1]["failure"] == "no"
    assert body["cores"] >= 1
