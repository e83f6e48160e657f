from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xiaozhi_trio.store.secret import (
    FILE_NAME,
    SecretUnavailable,
    load_or_create_secret,
    state_folder,
)


def test_created_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    secret = load_or_create_secret(folder)
    assert len(secret) >= 32
    assert load_or_create_secret(folder) == secret
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_all_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: load_or_create_secret(tmp_path), range(64)))
    assert len(secrets) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_who_comes_second_takes_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_create_secret(tmp_path)
    answers = iter([False])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda _: next(answers))
        assert load_or_create_secret(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40])
def test_damaged_file_is_told_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(SecretUnavailable, match=FILE_NAME):
        load_or_create_secret(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretUnavailable, match=r"\[state\] directory"):
        load_or_create_secret(tmp_path / "file" / "state")


def test_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder("~/x") == tmp_path / "x"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_folder("") == tmp_path / ".local/state/xiaozhi-trio"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert state_folder("") == Path("/var/state/xiaozhi-trio")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert state_folder("") == tmp_path / "Library/Application Support/xiaozhi-trio"
