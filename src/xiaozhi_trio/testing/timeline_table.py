"""A timeline for people to read: one column a side, one line a happening."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from xiaozhi_trio.testing.timeline import Side

if TYPE_CHECKING:
    from xiaozhi_trio.testing.timeline import Happening, Timeline

_COLOURS = {
    Side.PERSON: "green",
    Side.DEVICE: "cyan",
    Side.SERVER: "yellow",
    Side.ENGINE: "magenta",
}


def timeline_table(timeline: Timeline) -> Table:
    """The whole record; runs of audio packets are one line."""
    table = Table("ms", *(side.value for side in Side), box=None, header_style="bold")
    table.columns[0].justify = "right"
    for (side, kind), run in groupby(timeline.happenings, key=lambda each: (each.side, each.kind)):
        happenings = list(run)
        if kind == "audio":
            times = f"× {len(happenings)}, to {_ms(timeline, happenings[-1])} ms"
            table.add_row(_ms(timeline, happenings[0]), *_cells(side, "audio", times))
            continue
        for event in happenings:
            table.add_row(_ms(timeline, event), *_cells(side, event.kind, event.text))
    return table


def _ms(timeline: Timeline, event: Happening) -> str:
    return f"{(event.at - timeline.began_at) * 1000:.0f}"


def _cells(side: Side, kind: str, text: str) -> list[Text]:
    # Of a peer: shown as it is, never taken for markup or for control of the terminal.
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text)
    cell = Text(kind, style=_COLOURS[side]) + Text(f" {shown}" if shown else "")
    return [cell if each is side else Text() for each in Side]
