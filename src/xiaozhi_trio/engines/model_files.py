"""Model files on disk: checked before they get their name, remembered once checked.

A file has its final name only when it is whole: it is written under another name,
checked, flushed to the disk and renamed. The functions here block; they are made
for `trio.to_thread.run_sync` and stop within one chunk when their caller is cancelled.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import IO, TYPE_CHECKING

import attrs
import cattrs
import orjson
import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

CHUNK_BYTES = 1 << 20
"""Read between two looks at whether the caller was cancelled; some milliseconds of work."""

_RECORD_NAME = ".verified.json"


class MismatchError(Exception):
    """Bytes are not those that the catalogue pins."""


@attrs.frozen
class VerifiedFile:
    """What a file looked like when its hash was last found right.

    As long as size and time of change stay the same it is taken for unchanged,
    so that a start need not hash half a gigabyte.
    """

    sha256: str
    size: int
    """Bytes."""
    modified_ns: int
    """Time of last change, nanoseconds since the epoch."""

    @classmethod
    def of(cls, path: Path, sha256: str) -> VerifiedFile:
        status = path.stat()
        return cls(sha256, status.st_size, status.st_mtime_ns)


def read_record(folder: Path) -> dict[str, VerifiedFile]:
    """The files of `folder` found right before; empty where there is no readable record."""
    try:
        record = orjson.loads((folder / _RECORD_NAME).read_bytes())
        return cattrs.structure(record, dict[str, VerifiedFile])
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, cattrs.BaseValidationError):
        # The record only spares hashing; without it the files are hashed again.
        return {}


def write_record(folder: Path, record: Mapping[str, VerifiedFile]) -> None:
    """Remember the files of `folder` found right."""
    with replacing(folder / _RECORD_NAME) as output:
        output.write(orjson.dumps(cattrs.unstructure(record), option=orjson.OPT_INDENT_2))


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name whole or not at all.

    An error or cancellation inside leaves neither a new `target` nor a remainder.
    """
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with unfinished.open("wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    _flush_folder(target.parent)


def place(candidate: Path, target: Path) -> None:
    """Give a checked file its final name, on the disk for good."""
    with candidate.open("rb") as file:
        os.fsync(file.fileno())
    candidate.replace(target)
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return _hash_of(_chunks(file))


def check(path: Path, *, size: int, sha256: str) -> None:
    """Raise `MismatchError` unless the file is exactly what is pinned."""
    found = path.stat().st_size
    if found != size:
        raise MismatchError(f"{found} bytes came, {size} were expected")
    _expect(hash_file(path), sha256)


def write_checked(source: IO[bytes], target: Path, *, size: int, sha256: str | None) -> None:
    """Write `source` to `target` if it is exactly what is pinned, else raise `MismatchError`.

    Never writes more than `size` bytes, whatever `source` has.
    """
    digest = hashlib.sha256()
    with replacing(target) as output:
        left = size
        while chunk := source.read(min(CHUNK_BYTES, left + 1)):
            trio.from_thread.check_cancelled()
            if len(chunk) > left:
                raise MismatchError(f"more than the expected {size} bytes came")
            left -= len(chunk)
            digest.update(chunk)
            output.write(chunk)
        if left:
            raise MismatchError(f"{size - left} bytes came, {size} were expected")
        if sha256 is not None:
            _expect(digest.hexdigest(), sha256)


def join_checked(parts: Iterable[Path], target: Path, *, sha256: str) -> None:
    """Write the parts one after the other to `target`; raises `MismatchError` as `check` does."""
    digest = hashlib.sha256()
    with replacing(target) as output:
        for part in parts:
            with part.open("rb") as source:
                for chunk in _chunks(source):
                    digest.update(chunk)
                    output.write(chunk)
        _expect(digest.hexdigest(), sha256)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        trio.from_thread.check_cancelled()
        yield chunk


def _hash_of(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _expect(found: str, expected: str) -> None:
    if found != expected:
        raise MismatchError(f"SHA-256 {found} came, {expected} was expected")
