from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from xiaozhi_trio.engines import model_files
from xiaozhi_trio.engines.model_files import (
    CHUNK_BYTES,
    MismatchError,
    VerifiedFile,
    check,
    hash_file,
    join_checked,
    place,
    read_record,
    replacing,
    write_checked,
    write_record,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
in_thread = trio.to_thread.run_sync


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)

    assert await in_thread(hash_file, tmp_path / "a") == SHA256


async def test_hashing_a_file_looks_for_cancellation(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    finished = False

    def cancel_and_hash() -> None:
        nonlocal finished
        trio.from_thread.run_sync(scope.cancel)
        hash_file(tmp_path / "a")
        finished = True

    with trio.CancelScope() as scope:
        await in_thread(cancel_and_hash)

    assert scope.cancelled_caught
    assert not finished


async def test_check_tells_size_and_hash_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    await in_thread(lambda: check(path, size=len(DATA), sha256=SHA256))

    with pytest.raises(MismatchError, match=f"{len(DATA)} bytes came, 3 were expected"):
        await in_thread(lambda: check(path, size=3, sha256=SHA256))
    with pytest.raises(MismatchError, match=f"SHA-256 {SHA256} came, {'0' * 64} was expected"):
        await in_thread(lambda: check(path, size=len(DATA), sha256="0" * 64))


async def test_hashing_stops_within_a_chunk_of_a_cancellation(tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()
    chunks = 0

    class Endless:
        def read(self, size: int) -> bytes:
            nonlocal chunks
            chunks += 1
            if chunks == 3:
                reached.set()
                assert go_on.wait(5)
            return b"x" * size

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def hashing() -> None:
            await in_thread(
                lambda: write_checked(Endless(), tmp_path / "a", size=1 << 40, sha256=None)
            )

        await in_thread(reached.wait)
        nursery.cancel_scope.cancel()
        go_on.set()

    assert chunks == 3
    assert not names_in(tmp_path)


@pytest.mark.parametrize("sha256", [SHA256, None])
async def test_what_is_pinned_is_written(tmp_path: Path, sha256: str | None) -> None:
    await in_thread(
        lambda: write_checked(io.BytesIO(DATA), tmp_path / "a", size=len(DATA), sha256=sha256)
    )

    assert (tmp_path / "a").read_bytes() == DATA
    assert len(names_in(tmp_path)) == 1


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (DATA[:-1], f"{len(DATA) - 1} bytes came"),
        (DATA + b"x", f"more than the expected {len(DATA)} bytes"),
        (DATA[:-1] + b"x", "SHA-256"),
        (b"", "0 bytes came"),
    ],
)
async def test_anything_else_is_not(tmp_path: Path, data: bytes, complaint: str) -> None:
    with pytest.raises(MismatchError, match=complaint):
        await in_thread(
            lambda: write_checked(io.BytesIO(data), tmp_path / "a", size=len(DATA), sha256=SHA256)
        )

    assert not names_in(tmp_path)


async def test_no_more_is_read_than_pinned(tmp_path: Path) -> None:
    source = io.BytesIO(b"x" * (CHUNK_BYTES * 4))

    with pytest.raises(MismatchError):
        await in_thread(lambda: write_checked(source, tmp_path / "a", size=10, sha256=None))

    assert source.tell() == 11


async def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    parts = [tmp_path / "1", tmp_path / "2"]
    parts[0].write_bytes(DATA[:7])
    parts[1].write_bytes(DATA[7:])

    await in_thread(lambda: join_checked(parts, tmp_path / "a", sha256=SHA256))
    assert (tmp_path / "a").read_bytes() == DATA

    with pytest.raises(MismatchError):
        await in_thread(lambda: join_checked(parts[::-1], tmp_path / "b", sha256=SHA256))
    assert not (tmp_path / "b").exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a"

    def break_off() -> None:
        with replacing(target) as output:
            output.write(b"half")
            assert not target.exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not names_in(tmp_path)

    target.write_bytes(b"old")
    with replacing(target) as output:
        output.write(b"new")
        output.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert names_in(tmp_path) == ["a"]


def test_files_are_on_the_disk_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the rename must not leave a file with a good name and bad content."""
    events = []
    fsync = model_files.os.fsync

    def recording_fsync(descriptor: int) -> None:
        events.append(sorted(path.name for path in tmp_path.iterdir()))
        fsync(descriptor)

    monkeypatch.setattr(model_files.os, "fsync", recording_fsync)
    (tmp_path / "candidate").write_bytes(DATA)
    place(tmp_path / "candidate", tmp_path / "final")
    with replacing(tmp_path / "other") as output:
        output.write(b"x")

    assert events == [
        ["candidate"],
        ["final"],
        ["final", "other.unfinished"],
        ["final", "other"],
    ]


def test_the_record_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    record = {"a": VerifiedFile.of(tmp_path / "a", SHA256)}

    write_record(tmp_path, record)

    assert read_record(tmp_path) == record
    assert record["a"].size == len(DATA)


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"3", b'{"a": 1}', b'{"a": {"size": "x"}}']
)
def test_an_unreadable_record_is_no_record(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / ".verified.json").write_bytes(content)

    assert read_record(tmp_path) == {}
