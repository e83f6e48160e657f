"""Results for people (a table) and for programs (JSON)."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from rich.table import Table

import xiaozhi_trio
from xiaozhi_trio.bench.figures import Figure, median_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xiaozhi_trio.bench.run import Result


def table(results: Sequence[Result]) -> Table:
    """One row a figure; where there were several rounds, the median of each number."""
    shown = Table("server", "scenario", "figure", "unit", title_justify="left")
    for column in ("count", "p50", "p95", "p99", "max"):
        shown.add_column(column, justify="right")
    for (target, scenario, devices), rounds in _grouped(results).items():
        played = f"{scenario}, {devices} devices"
        for figure in _medians(rounds):
            shown.add_row(target, played, figure.name, figure.unit, *_cells(figure))
            target = played = ""
        for result in rounds:
            if result.failure is not None:
                shown.add_row(target, played, f"no figures in round {result.round}")
        shown.add_section()
    return shown


def as_json(results: Sequence[Result]) -> bytes:
    """Every round, with the machine it was measured on."""
    body = {
        "version": xiaozhi_trio.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "results": [
            {
                **attrs.asdict(result, recurse=False),
                "figures": [figure.as_json() for figure in result.figures],
            }
            for result in results
        ],
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2)


def _grouped(results: Iterable[Result]) -> Mapping[tuple[str, str, int], list[Result]]:
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.target, result.scenario, result.devices), []).append(result)
    return groups


def _medians(rounds: Sequence[Result]) -> list[Figure]:
    figures: dict[str, list[Figure]] = {}
    for result in rounds:
        for figure in result.figures:
            figures.setdefault(figure.name, []).append(figure)
    return [median_of(same) for same in figures.values()]


def _cells(figure: Figure) -> list[str]:
    if figure.count <= 1:
        return ["", _number(figure.p50), "", "", ""]
    numbers: list[Any] = [figure.p50, figure.p95, figure.p99, figure.max]
    return [str(figure.count), *map(_number, numbers)]


def _number(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"
