from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from xiaozhi_trio.config.settings import TelemetrySettings
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.telemetry import extra
from xiaozhi_trio.telemetry.telemetry import Telemetry
from xiaozhi_trio.telemetry.trace_record import from_json
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from xiaozhi_trio.http.services import HttpServices

TOKEN = "a-token-of-some-length"
LOCAL = ("127.0.0.1", 50_000)
MAC = "aa:bb:cc:dd:ee:01"


@pytest.fixture
def reader(make_services: Callable[..., HttpServices]) -> Callable[..., Any]:
    @asynccontextmanager
    async def reader(
        telemetry: Telemetry,
        *,
        client: tuple[str, int] = LOCAL,
        base: str = "http://127.0.0.1:8003",
        **services: Any,
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = build_app(make_services(telemetry=telemetry, **services))
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield http

    return reader


async def live(telemetry: Telemetry, number: int, device: str = MAC) -> None:
    now = trio.current_time()
    trace = telemetry.traces.begin(number, "spoken", device=device, session="s1", at=now - 1)
    trace.mark(Moment.VOICE_START, at=now - 1)
    trace.mark(Moment.COMMITTED_END, at=now)
    with trace.stage("asr", engine="whisper"):
        pass
    trace.conclude("finished")


@pytest.mark.parametrize("path", ["/xiaozhi/traces", "/xiaozhi/traces/"])
async def test_the_turns_of_late(reader, path: str) -> None:
    telemetry = Telemetry()
    await live(telemetry, 1)
    async with reader(telemetry) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    page = from_json(answer.content)
    assert (page.serial, page.devices) == (1, (MAC,))
    (turn,) = page.turns
    assert (turn.device, turn.number, turn.outcome) == (MAC, 1, "finished")
    assert turn.began_ms == -1000
    assert 0 <= turn.over_ms < 1000
    (stage,) = turn.stages
    assert (stage.name, stage.engine, stage.outcome) == ("asr", "whisper", "ok")


async def test_the_turns_asked_for(reader) -> None:
    telemetry = Telemetry()
    for number in (1, 2, 3):
        await live(telemetry, number)
    await live(telemetry, 1, "kitchen")

    async with reader(telemetry) as client:

        async def serials(query: str) -> list[int]:
            answer = await client.get(f"/xiaozhi/traces?{query}")
            return [turn.serial for turn in from_json(answer.content).turns]

        assert await serials("") == [1, 2, 3, 4]
        assert await serials("last=2") == [3, 4]
        assert await serials("device=AA-BB-CC-DD-EE-01&last=2") == [2, 3]
        assert await serials("after=3") == [4]
        assert await serials("device=nobody") == []


@pytest.mark.parametrize(
    "query", ["last=0", "last=201", "last=-1", "last=x", "last=²", "after=9" * 20, "device=a%0ab"]
)
async def test_a_query_that_is_wrong(reader, query: str) -> None:
    async with reader(Telemetry()) as client:
        answer = await client.get(f"/xiaozhi/traces?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "query_wrong"


@pytest.mark.parametrize("path", ["/xiaozhi/traces", "/metrics"])
class TestWhoMayRead:
    @pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
    @pytest.mark.parametrize("host", ["127.0.0.1:8003", "localhost", "[::1]:8003", "[::1]"])
    async def test_this_machine(self, reader, path: str, client: str, host: str) -> None:
        async with reader(Telemetry(), client=(client, 1)) as http:
            answer = await http.get(path, headers={"Host": host})
        assert answer.status_code != 403

    @pytest.mark.parametrize(
        ("client", "headers"),
        [
            ("192.168.1.5", {}),
            ("192.168.1.5", {"Host": "localhost"}),
            ("192.168.1.5", {"X-Forwarded-For": "127.0.0.1"}),
            ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}),
            ("127.0.0.1", {"Forwarded": "for=203.0.113.9"}),
            ("127.0.0.1", {"Origin": "https://example.com"}),
            ("127.0.0.1", {"Host": "rebound.example.com:8003"}),
            ("127.0.0.1", {"Host": "localhost.example.com"}),
        ],
    )
    async def test_nobody_else(
        self, reader, path: str, client: str, headers: dict[str, str]
    ) -> None:
        async with reader(Telemetry(), client=(client, 1)) as http:
            answer = await http.get(path, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"] == "reader_not_local"

    async def test_who_has_the_token_from_anywhere(self, reader, path: str) -> None:
        telemetry = Telemetry(TelemetrySettings(read_token=TOKEN))
        async with reader(telemetry, client=("192.168.1.5", 1)) as http:
            answer = await http.get(path, headers={"Authorization": f"bearer {TOKEN}"})
        assert answer.status_code != 403

    @pytest.mark.parametrize(
        ("authorization", "reason"),
        [
            (None, "read_token_missing"),
            (f"Basic {TOKEN}", "read_token_missing"),
            ("Bearer", "read_token_missing"),
            (f"Bearer {TOKEN}x", "read_token_wrong"),
            (f"Bearer {TOKEN[:-1]}", "read_token_wrong"),
            ("Bearer ünglich", "read_token_wrong"),
        ],
    )
    async def test_nobody_without_it_not_even_this_machine(
        self, reader, path: str, authorization: str | None, reason: str
    ) -> None:
        telemetry = Telemetry(TelemetrySettings(read_token=TOKEN))
        headers = {} if authorization is None else {"Authorization": authorization.encode()}
        async with reader(telemetry) as http:
            answer = await http.get(path, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"] == reason
        assert TOKEN not in answer.text


async def test_metrics_without_their_library_say_what_to_install(reader) -> None:
    async with reader(Telemetry()) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 501
    assert extra.INSTALL in answer.json()["message"]


async def test_metrics_as_prometheus_reads_them(reader) -> None:
    pytest.importorskip("prometheus_client")
    telemetry = Telemetry.of(
        TelemetrySettings(),
        Telemetry().counters,
        lambda: {
            "status": "ok",
            "version": "1.2",
            "uptime_seconds": 7.5,
            "sessions": 3,
            "engines": {"asr": {"engine": "whisper", "state": "ready"}},
        },
    )
    async with reader(telemetry) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "xiaozhi_sessions 3.0" in answer.text.splitlines()
