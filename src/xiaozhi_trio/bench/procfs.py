"""What a process costs, by Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LISTEN_STATE: Final = "0A"


class NoSuchProcess(Exception):
    """Its /proc cannot be read: it is not there, or not ours."""


@attrs.frozen
class Cost:
    """A process at one moment."""

    cpu_seconds: float
    """User and system time since it began, of all its threads."""
    waited_seconds: float
    """How long its main thread was ready to run and got no core: the machine's doing, not its."""
    private_bytes: int
    """Memory that is its own and no other process's."""
    threads: int


def cost_of(pid: int) -> Cost:
    """Raises `NoSuchProcess`."""
    folder = _PROC / str(pid)
    try:
        # The name, in brackets, may hold anything; what counts comes behind it.
        numbers = (folder / "stat").read_text().rpartition(")")[2].split()
        delay = int((folder / "schedstat").read_text().split()[1])
        memory = (folder / "smaps_rollup").read_text().splitlines()
    except OSError as error:
        raise NoSuchProcess(f"process {pid} cannot be read ({error})") from error
    user, system, threads = int(numbers[11]), int(numbers[12]), int(numbers[17])
    private = sum(int(line.split()[1]) for line in memory if line.startswith("Private_"))
    return Cost((user + system) / _TICKS, delay / 1e9, private * 1024, threads)


def listener_of(port: int) -> int | None:
    """The process id of whoever listens on a TCP port of this machine; None where unknown."""
    sockets = _listening_sockets(port)
    for folder in _PROC.glob("[0-9]*"):
        if not sockets.isdisjoint(_open_files(folder)):
            return int(folder.name)
    return None


def _open_files(folder: Path) -> Iterator[str]:
    try:
        handles = list((folder / "fd").iterdir())
    except OSError:
        # It has ended, or belongs to another user.
        return
    for handle in handles:
        with contextlib.suppress(OSError):
            # Closed since it was listed.
            yield str(handle.readlink())


def _listening_sockets(port: int) -> set[str]:
    found = set()
    for table in (_PROC / "net" / "tcp", _PROC / "net" / "tcp6"):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
