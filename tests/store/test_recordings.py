from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from xiaozhi_trio.config.settings import RecordingSettings
from xiaozhi_trio.store.recording_format import (
    Binary,
    Ended,
    Heading,
    LeftOut,
    Line,
    LineMalformed,
    Message,
    Packet,
    Stopped,
    Text,
    heading_json,
    line_json,
    parse_heading,
    parse_line,
)
from xiaozhi_trio.store.recordings import RecordingFull, Recordings

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


def recordings(folder: Path, **settings: float) -> Recordings:
    shelf = Recordings(RecordingSettings(directory=str(folder), **settings))
    shelf.prepare()
    return shelf


def finished(shelf: Recordings, *, age: float = 0, size: int = 10, session: str = "s") -> Path:
    folder = shelf.begin(unix=time.time() - age, device="d", session=session)
    folder.append("uplink.ogg", b"x" * size)
    folder.close()
    return folder.path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    shelf = recordings(tmp_path, max_days=2)
    old, young = finished(shelf, age=2 * DAY + 5), finished(shelf, age=DAY)
    shelf.tidy()
    assert names(tmp_path) == [young.name]
    assert not old.exists()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    shelf = recordings(tmp_path, max_megabytes=1)
    first, second, third = (
        finished(shelf, age=age, size=400_000, session=str(age)) for age in (30, 20, 10)
    )
    assert not first.exists()
    assert second.exists()
    assert third.exists()


def test_what_is_still_written_is_never_deleted(tmp_path: Path) -> None:
    shelf = recordings(tmp_path, max_megabytes=1, max_days=1)
    ancient = shelf.begin(unix=time.time() - 3 * DAY, device="d", session="open")
    ancient.append("uplink.ogg", b"x" * 900_000)
    with pytest.raises(RecordingFull, match="max_megabytes"):
        ancient.append("uplink.ogg", b"x" * 200_000)
    ancient.append("messages.jsonl", b"the last word", is_last=True)
    shelf.tidy()
    assert (ancient.path / "uplink.ogg").stat().st_size == 900_000
    ancient.close()
    shelf.tidy()
    assert names(tmp_path) == []


def test_one_session_has_its_own_bound(tmp_path: Path) -> None:
    shelf = recordings(tmp_path, session_megabytes=1)
    folder = shelf.begin(unix=0, device="d", session="s")
    folder.append("uplink.ogg", b"x" * 999_999)
    folder.append("uplink.ogg", b"x")
    folder.append("uplink.ogg", b"")
    with pytest.raises(RecordingFull, match="session_megabytes"):
        folder.append("uplink.ogg", b"x")
    folder.close()


def test_only_recordings_are_deleted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "uplink.ogg").write_text("not ours")
    folder = tmp_path / "recordings"
    shelf = recordings(folder, max_days=1)
    (folder / "holiday").mkdir()
    (folder / "20200101T000000Z_d_file").write_text("no folder")
    (folder / "20200101T000000Z_d_link").symlink_to(elsewhere)
    (folder / "20209901T000000Z_d_s").mkdir()
    foreign = folder / "20200101T000000Z_d_s"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("somebody's only copy")
    (foreign / "uplink.ogg").write_text("ours")
    before = names(folder)
    shelf.tidy()
    assert names(folder) == before
    assert names(foreign) == ["thesis.txt"]
    assert names(elsewhere) == ["uplink.ogg"]


def test_recordings_of_an_earlier_run_count(tmp_path: Path) -> None:
    earlier = finished(recordings(tmp_path), age=60, size=900_000)
    finished(recordings(tmp_path, max_megabytes=1), size=200_000, session="later")
    assert not earlier.exists()


@pytest.mark.parametrize(
    "line",
    [
        Message(at=1.5, side="device", body={"kind": "x", "type": "listen"}),
        Text(at=0, side="server", text="so"),
        Packet(at=2, side="server", number=3, timestamp=9),
        Binary(at=2, side="device", base64=""),
        LeftOut(at=2, device=1, server=0),
        Stopped(at=2, reason="full"),
        Ended(at=2, reason="peer_gone", code=1000),
    ],
)
def test_lines_come_back(line: Line) -> None:
    text = line_json(line)
    assert text.count(b"\n") == 1
    assert parse_line(text) == line


def test_headings_come_back() -> None:
    heading = Heading(
        began="b", unix=1.5, server="s", session="i", device="d", notes=("n",), settings={"a": 1}
    )
    assert parse_heading(heading_json(heading)) == heading


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "no JSON"),
        (b"[1]", "JSON list, expected object"),
        (b'{"at":1}', "no kind"),
        (b'{"kind":"later","at":1}', "another version; known: message"),
        (b'{"kind":"packet","at":1,"number":1}', "side"),
        (b'{"kind":"packet","at":1,"side":"moon","number":1}', "moon"),
    ],
)
def test_lines_of_another_format_are_told(text: bytes, problem: str) -> None:
    with pytest.raises(LineMalformed, match=problem):
        parse_line(text)
