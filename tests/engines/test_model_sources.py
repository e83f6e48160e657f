from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import pytest
import trio

from xiaozhi_trio.engines import model_sources
from xiaozhi_trio.engines.catalogue import (
    CatalogueFile,
    HubSource,
    ReleaseSource,
    Source,
    VendoredSource,
)
from xiaozhi_trio.engines.model_sources import (
    ATTEMPTS,
    REST_SECONDS,
    DownloadCarrier,
    Order,
    SourceError,
    VendoredCarrier,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DATA = bytes(range(256)) * 4000
RELEASE = ReleaseSource("https://models.example.org/tiny.bin")


@attrs.define
class Body(httpx.AsyncByteStream):
    """A body that can stop, break or overflow; each item is bytes or what happens instead."""

    items: Sequence[bytes | Exception | Callable[[], Any]]
    closed: bool = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self.items:
            await trio.lowlevel.checkpoint()
            if isinstance(item, Exception):
                raise item
            if not isinstance(item, bytes):
                await item()
                continue
            yield item

    async def aclose(self) -> None:
        self.closed = True


@attrs.define
class Server:
    """Answers requests one after the other and remembers them."""

    answers: list[httpx.Response | Exception]
    requests: list[httpx.Request] = attrs.field(factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def carrier(self) -> DownloadCarrier:
        return DownloadCarrier(httpx.MockTransport(self))


def answer(
    items: Sequence[Any], status: int = 200, *, length: int | None = None, **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if length is not None:
        named["content-length"] = str(length)
    return httpx.Response(status, headers=named, stream=Body(items))


def blocks(data: bytes, size: int = 100_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def order_for(folder: Path, source: Source, *, data: bytes = DATA) -> Order:
    file = CatalogueFile("tiny.bin", len(data), hashlib.sha256(data).hexdigest(), (source,))
    return Order(
        file=file,
        source=source,
        folder=folder,
        missing=[file],
        report=lambda _done: None,
        threads=trio.CapacityLimiter(1),
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_release_is_fetched_and_its_progress_told(tmp_path: Path) -> None:
    server = Server([answer(blocks(DATA), length=len(DATA))])
    told: list[int] = []
    order = attrs.evolve(order_for(tmp_path, RELEASE), report=told.append)

    path = await server.carrier().fetch(order)

    assert path.read_bytes() == DATA
    assert path.parent == tmp_path
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == len(DATA)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert "range" not in server.requests[0].headers


async def test_the_hub_is_asked_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = Server([answer([DATA])])
    source = HubSource("someone/tiny", "onnx/tiny.bin", "abc")

    await server.carrier().fetch(order_for(tmp_path, source))

    (request,) = server.requests
    assert request.url.path == "/someone/tiny/resolve/abc/onnx/tiny.bin"
    assert "authorization" not in request.headers


async def test_the_hub_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(SourceError, match=r"not installed.*embedded"):
        await Server([]).carrier().fetch(order_for(tmp_path, HubSource("a/b", "c")))


async def test_an_offline_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):
        await Server([]).carrier().fetch(order_for(tmp_path, HubSource("a/b", "c")))


@pytest.mark.parametrize("url", ["nowhere/a", "https://[::1/a"])
async def test_an_address_without_sense_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(model_sources, "_hub_address", lambda _source: url)

    with pytest.raises(SourceError, match="its address"):
        await Server([]).carrier().fetch(order_for(tmp_path, HubSource("a/b", "c")))


async def test_redirects_are_followed(tmp_path: Path) -> None:
    elsewhere = "https://cdn.example.org/x"
    server = Server([answer([], 302, location=elsewhere), answer([DATA])])

    path = await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert path.read_bytes() == DATA
    assert str(server.requests[1].url) == elsewhere


async def test_endless_redirects_are_an_error_of_the_source(tmp_path: Path) -> None:
    server = Server([answer([], 302, location="/again") for _ in range(10)])

    with pytest.raises(SourceError, match="redirects"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("status", "transient"), [(404, False), (401, False), (429, True), (503, True)]
)
async def test_a_refusal_is_told_with_its_status(
    tmp_path: Path, status: int, transient: bool
) -> None:
    server = Server([answer([], status)])

    with pytest.raises(SourceError, match=rf"models\.example\.org answered {status}") as caught:
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert caught.value.transient is transient
    assert not names_in(tmp_path)


async def test_an_unreachable_host_is_left_alone_for_a_while(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    server = Server([httpx.ConnectError("refused"), answer([DATA])])
    carrier = server.carrier()
    order = order_for(tmp_path, RELEASE)

    with pytest.raises(SourceError, match=r"models\.example\.org cannot .*refused") as first:
        await carrier.fetch(order)
    with pytest.raises(SourceError) as second:
        await carrier.fetch(order)

    assert (first.value.transient, first.value.repeated) == (True, False)
    assert (second.value.transient, second.value.repeated) == (True, True)
    assert str(second.value) == str(first.value)
    assert len(server.requests) == 1

    mock_clock.jump(REST_SECONDS)
    assert (await carrier.fetch(order)).read_bytes() == DATA


async def test_a_silent_host_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_sources, "ANSWER_SECONDS", 0.01)

    async def never(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    carrier = DownloadCarrier(httpx.MockTransport(never))
    with pytest.raises(SourceError, match=r"no answer within 0\.01 s"):
        await carrier.fetch(order_for(tmp_path, RELEASE))


async def test_a_broken_transfer_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    half = len(DATA) // 2
    server = Server(
        [
            answer([DATA[:half], httpx.ReadError("reset")], length=len(DATA)),
            answer([DATA[half:]], 206, content_range=f"bytes {half}-{len(DATA) - 1}/{len(DATA)}"),
        ]
    )

    path = await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert path.read_bytes() == DATA
    assert server.requests[1].headers["range"] == f"bytes={half}-"


async def test_a_cancelled_transfer_is_taken_up_by_the_next_fetch(tmp_path: Path) -> None:
    half = len(DATA) // 2
    body = Body([DATA[:half], trio.sleep_forever])
    server = Server(
        [
            httpx.Response(200, stream=body),
            answer([DATA[half:]], 206, content_range=f"bytes {half}-"),
        ]
    )
    carrier = server.carrier()

    with trio.CancelScope() as scope:
        order = order_for(tmp_path, RELEASE)
        await carrier.fetch(
            attrs.evolve(order, report=lambda done: scope.cancel() if done >= half else None)
        )
    assert scope.cancelled_caught
    assert body.closed
    assert names_in(tmp_path) == ["tiny.bin.download"]

    path = await carrier.fetch(order_for(tmp_path, RELEASE))
    assert path.read_bytes() == DATA
    assert server.requests[1].headers["range"] == f"bytes={half}-"


async def test_a_server_that_cannot_resume_starts_over(tmp_path: Path) -> None:
    (tmp_path / "tiny.bin.download").write_bytes(b"x" * 100)
    server = Server([answer([DATA], length=len(DATA))])

    path = await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert path.read_bytes() == DATA
    assert server.requests[0].headers["range"] == "bytes=100-"


async def test_a_file_that_is_already_there_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "tiny.bin.download").write_bytes(DATA)
    server = Server([])

    assert (await server.carrier().fetch(order_for(tmp_path, RELEASE))).read_bytes() == DATA


async def test_a_longer_remainder_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "tiny.bin.download").write_bytes(DATA + b"x")
    server = Server([answer([DATA])])

    assert (await server.carrier().fetch(order_for(tmp_path, RELEASE))).read_bytes() == DATA
    assert "range" not in server.requests[0].headers


async def test_another_part_than_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.bin.download").write_bytes(DATA[:100])
    server = Server([answer([DATA[50:]], 206, content_range="bytes 50-")])

    with pytest.raises(SourceError, match="another part"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))


async def test_a_transfer_that_brings_nothing_is_not_tried_again(tmp_path: Path) -> None:
    server = Server([answer([httpx.ReadError("reset")], length=len(DATA))])

    with pytest.raises(SourceError, match="broke off: reset") as caught:
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert caught.value.transient


async def test_a_transfer_that_always_breaks_is_given_up(tmp_path: Path) -> None:
    server = Server(
        [
            answer([DATA[n : n + 1]], 206 if n else 200, content_range=f"bytes {n}-")
            for n in range(ATTEMPTS)
        ]
    )

    with pytest.raises(SourceError, match=f"broke off {ATTEMPTS} times"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))


async def test_wrong_bytes_are_deleted(tmp_path: Path) -> None:
    server = Server([answer([DATA[:-1] + b"x"])])

    with pytest.raises(SourceError, match="SHA-256"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert not names_in(tmp_path)


async def test_another_size_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    server = Server([answer([DATA, DATA], length=2 * len(DATA))])

    with pytest.raises(SourceError, match=f"{2 * len(DATA)} bytes, {len(DATA)} were expected"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert not names_in(tmp_path)


async def test_an_endless_body_is_cut_at_the_pinned_size(tmp_path: Path) -> None:
    body = Body([DATA, *[b"x" * 300_000] * 1000])
    server = Server([httpx.Response(200, stream=body)])

    with pytest.raises(SourceError, match="more bytes"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert body.closed
    assert (tmp_path / "tiny.bin.download").stat().st_size <= len(DATA)


async def test_a_full_disk_is_not_the_source_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def open_full(*_arguments: Any) -> Any:
        return trio.wrap_file(open("/dev/full", "wb", buffering=0))  # noqa: ASYNC230, PTH123

    if not os.path.exists("/dev/full"):  # noqa: ASYNC240, PTH110
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(model_sources.trio, "open_file", open_full)
    body = Body([b"x" * 300_000] * 3)
    server = Server([httpx.Response(200, stream=body)])

    with pytest.raises(OSError, match="No space left"):
        await server.carrier().fetch(order_for(tmp_path, RELEASE))

    assert body.closed


@pytest.mark.parametrize("proxy", ["ftp://user:secret@proxy.example.org"])
async def test_unusable_proxy_settings_are_told_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(SourceError, match="proxy settings") as caught:
        await DownloadCarrier().fetch(order_for(tmp_path, RELEASE))

    assert "secret" not in str(caught.value)


async def test_vendored_files_are_copied(tmp_path: Path) -> None:
    from importlib.resources import files

    data = files("xiaozhi_trio.engines").joinpath("voices/af_heart.bin").read_bytes()
    order = order_for(tmp_path, VendoredSource("voices/af_heart.bin"), data=data)

    assert (await VendoredCarrier().fetch(order)).read_bytes() == data


@pytest.mark.parametrize(
    ("resource", "complaint"),
    [("voices/none.bin", "not part of this installation"), ("voices/LICENSE", "expected")],
)
async def test_other_vendored_files_are_refused(
    tmp_path: Path, resource: str, complaint: str
) -> None:
    with pytest.raises(SourceError, match=complaint):
        await VendoredCarrier().fetch(order_for(tmp_path, VendoredSource(resource)))


async def test_a_carrier_given_another_kind_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a VendoredSource"):
        await VendoredCarrier().fetch(order_for(tmp_path, RELEASE))


def test_credentials_never_leave() -> None:
    assert (
        without_credentials("at https://user:pa:ss@host/x and //u@h") == "at https://host/x and //h"
    )
    assert "pass" not in str(SourceError("https://user:pass@host"))
