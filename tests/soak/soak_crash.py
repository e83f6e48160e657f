"""Kills a process at every step of what it writes, and looks whether the next one can go on.

Run as `python soak_crash.py secret|models FOLDER`. A step is a call of the system that
opens, names or removes a file, or a block that comes from the network. For each step a
child is killed by SIGKILL right before it, and a second child does the same in what the
first has left. Prints the number of steps; fails with a traceback where a second child
does.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx
import trio
from loguru import logger

from xiaozhi_trio.engines.catalogue import (
    Catalogue,
    CatalogueFile,
    CatalogueModel,
    ReleaseSource,
)
from xiaozhi_trio.engines.model_sources import DownloadCarrier
from xiaozhi_trio.engines.model_store import ModelStore, Presence
from xiaozhi_trio.store.secret import FILE_NAME, load_or_create_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_PATIENCE_SECONDS: Final = 20
"""For the second child; one that waits for a dead process's lock takes longer."""
_NAMING: Final = frozenset({"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"})
_BLOCK: Final = 512
_CONTENT: Final = {"big.bin": bytes(range(256)) * 10, "small.bin": b"small"}


@attrs.define
class Fuse:
    """Kills this process right before a given step; at 0 it never does."""

    folder: str
    left: int = 0
    steps: int = 0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NAMING or (event == "open" and str(arguments[0]).startswith(self.folder)):
            self.burn()

    def burn(self) -> None:
        self.steps += 1
        if self.steps == self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def secret(folder: Path, _fuse: Fuse) -> None:
    """Make the secret; one that another process could have used already stays."""
    path = folder / "state" / FILE_NAME
    known = path.read_text("ascii").strip() if path.exists() else None
    made = load_or_create_secret(folder / "state")
    assert known in (None, made), "there is another secret now"
    assert load_or_create_secret(folder / "state") == made


def models(folder: Path, fuse: Fuse) -> None:
    """Fetch a model; its files are whole, and nothing else is left."""
    trio.run(_fetch, folder, fuse)


async def _fetch(folder: Path, fuse: Fuse) -> None:
    files = tuple(
        CatalogueFile(
            name,
            len(data),
            hashlib.sha256(data).hexdigest(),
            (ReleaseSource(f"https://models.example/{name}"),),
        )
        for name, data in _CONTENT.items()
    )
    store = ModelStore(
        folder / "models",
        catalogue=Catalogue({"tiny": CatalogueModel("tiny", "A tiny model", "MIT", "a/b", files)}),
        carriers={"release": DownloadCarrier(httpx.MockTransport(partial(_answer, fuse)))},
    )
    found = await store.ensure("tiny")
    assert store.state("tiny").presence is Presence.PRESENT
    assert {path.name for path in found.iterdir()} == {*_CONTENT, ".verified.json"}
    assert all((found / name).read_bytes() == data for name, data in _CONTENT.items())
    # Where the first child was about to remove it, its folder may still be there.
    assert not list((folder / "models" / ".partial").glob("tiny/*"))


async def _answer(fuse: Fuse, request: httpx.Request) -> httpx.Response:
    await trio.lowlevel.checkpoint()
    data = _CONTENT[request.url.path.strip("/")]
    wanted = request.headers.get("range")
    start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    headers = {"content-length": str(len(data) - start)}
    if wanted:
        headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return httpx.Response(
        206 if wanted else 200, headers=headers, content=_body(fuse, data[start:])
    )


async def _body(fuse: Fuse, data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _BLOCK):
        await trio.lowlevel.checkpoint()
        fuse.burn()
        yield data[start : start + _BLOCK]


TASKS: Final[dict[str, Callable[[Path, Fuse], None]]] = {"secret": secret, "models": models}


def _in_child(task: Callable[[Path, Fuse], None], folder: Path, *, killed_at: int) -> int:
    """Its status as `os.waitstatus_to_exitcode` gives it."""
    child = os.fork()
    if not child:
        if not killed_at:
            signal.alarm(_PATIENCE_SECONDS)
        fuse = Fuse(str(folder), killed_at)
        sys.addaudithook(fuse.audit)
        # What it raises ends the child as it ends any program.
        task(folder, fuse)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(name: str, top: Path) -> None:
    logger.remove()
    step = 1
    while True:
        folder = top / f"{name}-{step}"
        folder.mkdir()
        outcome = _in_child(TASKS[name], folder, killed_at=step)
        if outcome == 0:
            break
        if outcome != -signal.SIGKILL:
            sys.exit(f"step {step}: the first child ended with {outcome}")
        again = _in_child(TASKS[name], folder, killed_at=0)
        if again:
            sys.exit(f"killed at step {step}, the next child ended with {again}")
        step += 1
    sys.stdout.write(f"{step - 1}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
