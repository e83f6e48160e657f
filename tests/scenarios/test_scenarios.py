"""Every scenario that ships, played in memory on a virtual clock."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from xiaozhi_trio.testing.scenario_file import read_scenario
from xiaozhi_trio.testing.scenario_run import Played, play
from xiaozhi_trio.testing.timeline_table import timeline_table

SHIPPED = Path(str(resources.files("xiaozhi_trio.testing") / "scenarios"))


def _files(folder: Path) -> list[Any]:
    return [pytest.param(file, id=file.stem) for file in sorted(folder.glob("*.toml"))]


def told(played: Played) -> str:
    """The failures, then both sides of the conversation."""
    console = Console(width=150)
    with console.capture() as capture:
        for verdict in played.failures:
            console.print(f"{verdict.expectation}: {verdict.reason}", markup=False)
        console.print(timeline_table(played.timeline))
    return capture.get()


@pytest.mark.parametrize("file", _files(SHIPPED))
async def test_the_conversation_goes_as_it_should(file: Path, autojump_clock, join) -> None:
    played = await play(read_scenario(file), join)
    if played.failures:
        pytest.fail(told(played), pytrace=False)


def test_there_are_enough_of_them_each_with_a_name_of_its_own() -> None:
    files = sorted(SHIPPED.glob("*.toml"))
    names = [read_scenario(file).name for file in files]
    assert len(set(names)) == len(names)
    assert len(names) >= 60
