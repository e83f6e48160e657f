"""The folder of recordings: a folder for each session, bounded in age and size.

Everything here does file I/O and is for one thread at a time. The files hold what
people said: folders have mode 0700 and files 0600. Only what looks like a recording
is ever deleted, file by file, so that a folder with other things in it keeps them.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from xiaozhi_trio.store.recording_format import FILES

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import RecordingSettings

_MEGABYTE: Final = 1_000_000
_SECONDS_PER_DAY: Final = 86_400
_NAME: Final = re.compile(r"\d{8}T\d{6}Z_[A-Za-z0-9._-]{1,64}_[A-Za-z0-9-]{1,64}", re.ASCII)
_STAMP: Final = "%Y%m%dT%H%M%S%z"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)


class RecordingUnusable(Exception):
    """The folder cannot be recorded into; the text says why and what to do."""


class RecordingFull(Exception):
    """A bound was reached; the text names its setting."""


class Recordings:
    """The folder that `[recording] directory` names."""

    def __init__(self, settings: RecordingSettings) -> None:
        self._settings = settings
        self.folder = Path(settings.directory).expanduser()
        self._sizes: dict[str, int] = {}
        """Bytes of each recording, by name; names sort by their time."""
        self._open: set[str] = set()

    def prepare(self) -> None:
        """Make the folder where it is missing, and tidy it. Raises `RecordingUnusable`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.tidy()
        except OSError as error:
            raise self._unusable(str(error)) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise self._unusable("this user may not write there")

    def _unusable(self, problem: str) -> RecordingUnusable:
        return RecordingUnusable(
            f"sessions cannot be recorded in {self.folder} ({problem}); make it a folder this user "
            "may write, name another one by --record or [recording] directory, or record nothing"
        )

    def begin(self, *, unix: float, device: str, session: str) -> SessionFolder:
        """A new folder. `unix` is the session's start. Raises OSError."""
        stamp = datetime.fromtimestamp(unix, UTC).strftime("%Y%m%dT%H%M%SZ")
        name = f"{stamp}_{_UNSAFE.sub('-', device)[:64]}_{_UNSAFE.sub('-', session)[:64]}"
        self.tidy()
        (self.folder / name).mkdir(mode=0o700)
        self._sizes[name] = 0
        self._open.add(name)
        return SessionFolder(self, name)

    def grow(self, name: str, count: int) -> None:
        """Make room for so many bytes of a recording. Raises `RecordingFull`, OSError."""
        if self._sizes[name] + count > self._settings.session_megabytes * _MEGABYTE:
            raise RecordingFull("[recording] session_megabytes is reached")
        if self._total() + count > self._settings.max_megabytes * _MEGABYTE:
            self.tidy(reserve=count)
            if self._total() + count > self._settings.max_megabytes * _MEGABYTE:
                raise RecordingFull("[recording] max_megabytes is reached by the open sessions")
        self._sizes[name] += count

    def close(self, name: str) -> None:
        """The recording is complete and may be deleted when its time comes."""
        self._open.discard(name)

    def tidy(self, *, reserve: int = 0) -> None:
        """Delete what is too old, then the oldest until there is room for `reserve` bytes.

        Raises OSError where something cannot be deleted.
        """
        self._look()
        too_old = time.time() - self._settings.max_days * _SECONDS_PER_DAY
        room = self._settings.max_megabytes * _MEGABYTE - reserve
        for name in sorted(self._sizes.keys() - self._open):
            if _began(name) < too_old or self._total() > room:
                self._delete(name)

    def _total(self) -> int:
        return sum(self._sizes.values())

    def _look(self) -> None:
        """Count anew: another server may record here, and people delete."""
        found = {path.name: _size(path) for path in self.folder.iterdir() if _is_recording(path)}
        self._sizes = {name: self._sizes[name] for name in self._open} | {
            name: size for name, size in found.items() if name not in self._open
        }

    def _delete(self, name: str) -> None:
        folder = self.folder / name
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
        # Whatever else somebody has put there stays, and the folder with it.
        with suppress(OSError):
            folder.rmdir()
        del self._sizes[name]


class SessionFolder:
    """One recording while it is written. `close` it."""

    def __init__(self, recordings: Recordings, name: str) -> None:
        self._recordings = recordings
        self._name = name
        self._stack = ExitStack()
        self._files: dict[str, IO[bytes]] = {}

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._recordings.folder / self._name

    def append(self, file: str, data: bytes, *, is_last: bool = False) -> None:
        """Add to one of `FILES`; it is with the system when this returns.

        `is_last` is for a few bytes that end a file: no bound holds them back. Raises
        `RecordingFull` before anything is written, and OSError.
        """
        if not data:
            return
        if not is_last:
            self._recordings.grow(self._name, len(data))
        if file not in self._files:
            descriptor = os.open(self.path / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._files[file] = self._stack.enter_context(os.fdopen(descriptor, "wb"))
        self._files[file].write(data)
        self._files[file].flush()

    def close(self) -> None:
        """Close the files."""
        try:
            self._stack.close()
        finally:
            self._recordings.close(self._name)


def _size(recording: Path) -> int:
    size = 0
    # Another server may delete it meanwhile.
    with suppress(FileNotFoundError):
        for file in recording.iterdir():
            size += file.lstat().st_size
    return size


def _is_recording(path: Path) -> bool:
    if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    try:
        _began(path.name)
    except ValueError:
        return False
    return True


def _began(name: str) -> float:
    return datetime.strptime(f"{name[:15]}Z", _STAMP).timestamp()
