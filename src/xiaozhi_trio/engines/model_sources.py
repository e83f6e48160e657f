"""Where a model file comes from: the order to a carrier, and the publishers' own places.

A carrier gives a file that is exactly what the catalogue pins, or raises
`SourceError` with a reason that helps the operator. Carriers of registry
packages are in `model_packages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Protocol, TypeVar

import attrs
import httpx
import trio

from xiaozhi_trio.engines.catalogue import (
    CatalogueFile,
    HubSource,
    ReleaseSource,
    Source,
    VendoredSource,
)
from xiaozhi_trio.engines.model_files import MismatchError, check, write_checked

S = TypeVar("S")

CONNECT_SECONDS = 4.0
"""To a server that is there a connection takes milliseconds; a mirror may be next in line."""
ANSWER_SECONDS = 8.0
"""For the head of the answer, redirects included."""
READ_SECONDS = 30.0
"""For the next bytes of the body."""
REST_SECONDS = 300.0
"""How long a host that could not be reached is not asked again."""
ATTEMPTS = 5
"""Times a transfer that breaks off is taken up again, each after more bytes had come."""


class SourceError(Exception):
    """A source cannot give the file; the next one may."""

    def __init__(self, reason: str, *, transient: bool = False, repeated: bool = False) -> None:
        super().__init__(without_credentials(reason))
        self.transient = transient
        """True where the same source may well give it later."""
        self.repeated = repeated
        """True where this reason was already told for another file."""


def without_credentials(text: str) -> str:
    """`text` without the user and password of any address in it."""
    return re.sub(r"//[^/\s@]+@", "//", text)


@attrs.frozen(kw_only=True)
class Order:
    """A file wanted from one of its sources."""

    file: CatalogueFile
    source: Source
    folder: Path
    """For unfinished files of the model; kept until the model is whole, and ours alone."""
    missing: Sequence[CatalogueFile]
    """All files of the model still to come, `file` among them."""
    report: Callable[[int], None]
    """To be told how many bytes of the file are there."""
    threads: trio.CapacityLimiter
    """For work on files."""


def source_of(order: Order, kind: type[S]) -> S:
    """The source of the order; raises TypeError where its carrier was given another kind."""
    if not isinstance(order.source, kind):
        raise TypeError(f"expected a {kind.__name__}, got {order.source!r}")
    return order.source


class Carrier(Protocol):
    """Fetches files from one kind of source."""

    async def fetch(self, order: Order) -> Path:
        """The wanted file, checked, in the order's folder.

        Raises `SourceError`, or `OSError` where the local disk fails.
        """


class VendoredCarrier:
    """Gives files that come with this package."""

    async def fetch(self, order: Order) -> Path:
        source = source_of(order, VendoredSource)
        candidate = order.folder / f"{order.file.name}.copy"

        def copy() -> None:
            resource = files("xiaozhi_trio.engines").joinpath(source.resource)
            if not resource.is_file():
                raise SourceError(f"{source.resource} is not part of this installation")
            with as_file(resource) as path, path.open("rb") as original:
                write_checked(original, candidate, size=order.file.size, sha256=order.file.sha256)

        try:
            await trio.to_thread.run_sync(copy, limiter=order.threads)
        except MismatchError as error:
            raise SourceError(str(error)) from error
        order.report(order.file.size)
        return candidate


class DownloadCarrier:
    """Gives files from the model hub and from publishers' releases, over HTTPS.

    What came is kept when a transfer breaks off or is cancelled, and taken up from
    there. The hub is asked without a token: the models are public, and `HF_ENDPOINT`
    may name somebody else's mirror.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._resting: dict[str, tuple[float, str]] = {}

    async def fetch(self, order: Order) -> Path:
        if isinstance(order.source, HubSource):
            url = await trio.to_thread.run_sync(_hub_address, order.source, limiter=order.threads)
        else:
            url = source_of(order, ReleaseSource).url
        host = _host_of(url)
        until, reason = self._resting.get(host, (0.0, ""))
        if trio.current_time() < until:
            raise SourceError(reason, transient=True, repeated=True)
        candidate = order.folder / f"{order.file.name}.download"
        try:
            await _Download(url, candidate, order).run(self._transport)
            await trio.to_thread.run_sync(
                _check_or_delete, candidate, order.file, limiter=order.threads
            )
        except MismatchError as error:
            raise SourceError(str(error)) from error
        except _UnreachableError as error:
            reason = f"{host} cannot be reached: {error}"
            self._resting[host] = (trio.current_time() + REST_SECONDS, reason)
            raise SourceError(reason, transient=True) from error
        return candidate


class _UnreachableError(Exception):
    """No answer came from the host."""


class _BrokenOffError(Exception):
    """The body ended early."""


def _hub_address(source: HubSource) -> str:
    try:
        from huggingface_hub import constants, hf_hub_url
    except ImportError as error:
        raise SourceError(
            'huggingface_hub is not installed; pip install "xiaozhi-trio[embedded]" brings it'
        ) from error
    except ValueError as error:
        raise SourceError(f"HF_ENDPOINT is not an address: {error}") from error
    if constants.is_offline_mode():
        raise SourceError("HF_HUB_OFFLINE is set")
    address: str = hf_hub_url(source.repository, source.path, revision=source.revision)
    return address


def _host_of(url: str) -> str:
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise SourceError(f"its address is not valid: {error}") from error
    if not host:
        raise SourceError("its address names no host; HF_ENDPOINT has to begin with https://")
    return host


def _check_or_delete(candidate: Path, file: CatalogueFile) -> None:
    try:
        check(candidate, size=file.size, sha256=file.sha256)
    except MismatchError:
        candidate.unlink()
        raise


@attrs.define
class _Download:
    """One file on its way from one address."""

    url: str
    candidate: Path
    order: Order

    async def run(self, transport: httpx.AsyncBaseTransport | None) -> None:
        """Fetch what is missing; raises `SourceError`, `_UnreachableError` and `OSError`."""
        try:
            client = httpx.AsyncClient(
                transport=transport,
                timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=True,
                max_redirects=5,
                # Compressed bytes could be neither counted against the pinned size nor resumed.
                headers={"accept-encoding": "identity", "user-agent": "xiaozhi-trio"},
            )
        except (ImportError, ValueError) as error:
            raise SourceError(f"the proxy settings cannot be used: {error}") from error
        async with client:
            for _ in range(ATTEMPTS):
                before = await self._present()
                try:
                    return await self._transfer(client, before)
                except _BrokenOffError as error:
                    if await self._present() <= before:
                        raise SourceError(
                            f"the transfer broke off: {error}", transient=True
                        ) from error
            raise SourceError(f"the transfer broke off {ATTEMPTS} times", transient=True)

    async def _present(self) -> int:
        try:
            return (await trio.Path(self.candidate).stat()).st_size
        except FileNotFoundError:
            return 0

    async def _transfer(self, client: httpx.AsyncClient, start: int) -> None:
        size = self.order.file.size
        if start == size:
            return
        if start > size:
            start = 0
        headers = {"range": f"bytes={start}-"} if start else {}
        request = client.build_request("GET", self.url, headers=headers)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                response = await client.send(request, stream=True)
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise _UnreachableError(_describe(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(_describe(error)) from error
        try:
            if response.status_code != 206:
                start = 0
            self._judge(response, start)
            await self._receive(response, start)
        finally:
            await response.aclose()

    def _judge(self, response: httpx.Response, start: int) -> None:
        status = response.status_code
        if status not in {200, 206}:
            raise SourceError(
                f"{response.url.host} answered {status} {response.reason_phrase}".rstrip(),
                transient=status == 429 or status >= 500,
            )
        content_range = response.headers.get("content-range", "")
        if status == 206 and not content_range.startswith(f"bytes {start}-"):
            raise SourceError(f"{response.url.host} sent another part than asked for")
        length = response.headers.get("content-length")
        if length is not None and length != str(self.order.file.size - start):
            raise SourceError(
                f"{response.url.host} offers {length} bytes, "
                f"{self.order.file.size - start} were expected"
            )

    async def _receive(self, response: httpx.Response, start: int) -> None:
        """Append the body to the candidate.

        An error of our own cancels the loop instead of leaving it: httpx nests
        asynchronous generators, and one left between two items is not closed but
        waits for the garbage collector.
        """
        problem: Exception | None = None
        received = start
        async with await trio.open_file(self.candidate, "r+b" if start else "wb") as output:
            await output.seek(start)
            try:
                with trio.CancelScope() as scope:
                    async for block in response.aiter_raw():
                        if problem is not None:
                            continue
                        received += len(block)
                        if received > self.order.file.size:
                            problem = SourceError("more bytes came than expected")
                            scope.cancel()
                            continue
                        try:
                            with trio.CancelScope(shield=True):
                                await output.write(block)
                        except OSError as error:
                            problem = error
                            scope.cancel()
                            continue
                        self.order.report(received)
            except httpx.TransportError as error:
                problem = problem or _BrokenOffError(_describe(error))
        if problem is not None:
            raise problem
        if received < self.order.file.size:
            raise _BrokenOffError(f"{received} of {self.order.file.size} bytes came")


def _describe(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {ANSWER_SECONDS:g} s"
    return str(error) or type(error).__name__
