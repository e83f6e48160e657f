from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from xiaozhi_trio.cli import trace as command
from xiaozhi_trio.cli.failures import CommandFailed
from xiaozhi_trio.config.settings import ServerSettings, Settings, TelemetrySettings
from xiaozhi_trio.http.app import build_app
from xiaozhi_trio.http.server import serve_http
from xiaozhi_trio.http.services import HttpServices
from xiaozhi_trio.telemetry.telemetry import Telemetry
from xiaozhi_trio.telemetry.trace_record import TracePage, TurnRecord, to_json
from xiaozhi_trio.telemetry.turn_trace import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

    RunCommand = Callable[..., Result]

TOKEN = "a-token-of-some-length"


class NoTokens:
    def issue(self, client_id: str, device_id: str) -> str:
        return ""


async def live(telemetry: Telemetry, number: int, device: str) -> None:
    trace = telemetry.traces.begin(number, "typed", device=device)
    with trace.stage("llm", engine="llama"):
        trace.mark(Moment.FIRST_TOKEN)
    trace.conclude("finished")


@contextmanager
def running(*, token: str = "", turns: int = 3) -> Iterator[str]:
    """A server with some turns in a thread of its own, by its address."""
    addresses: list[str] = []
    ready, shutdowns = threading.Event(), list[tuple[trio.lowlevel.TrioToken, trio.Event]]()

    async def main() -> None:
        settings = Settings(
            server=ServerSettings(host="127.0.0.1", http_port=0, drain_seconds=0.1),
            telemetry=TelemetrySettings(read_token=token),
        )
        telemetry = Telemetry(settings.telemetry)
        for number in range(1, turns + 1):
            await live(telemetry, number, "aa:bb:cc:dd:ee:01" if number % 2 else "kitchen")
        services = HttpServices(
            settings=settings,
            tokens=NoTokens(),
            websocket_port=lambda: 0,
            health=dict,
            telemetry=telemetry,
        )
        shutdown = trio.Event()
        async with trio.open_nursery() as nursery:
            port = await nursery.start(
                partial(serve_http, build_app(services), services, shutdown=shutdown)
            )
            addresses.append(f"http://127.0.0.1:{port}")
            shutdowns.append((trio.lowlevel.current_trio_token(), shutdown))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert ready.wait(10)
        yield addresses[0]
    finally:
        for run_in, shutdown in shutdowns:
            run_in.run_sync_soon(shutdown.set)
        thread.join(10)


@pytest.mark.sockets
def test_the_turns_of_a_server_are_shown(run_command: RunCommand) -> None:
    with running() as url:
        shown = run_command("trace", "--url", url)
        one = run_command("trace", "--url", url, "--device", "kitchen", "--last", "5")
        lines = run_command("trace", "--url", url, "--json", "--last", "2")
    assert shown.exit_code == 0
    assert [line[:14] for line in shown.output.splitlines() if line.startswith("turn")] == [
        "turn 1 typed f",
        "turn 2 typed f",
        "turn 3 typed f",
    ]
    assert "llm llama" in shown.output
    assert "turn 2" in one.output
    assert "turn 1" not in one.output
    assert [json.loads(line)["number"] for line in lines.output.splitlines()] == [2, 3]


@pytest.mark.sockets
def test_the_token_is_taken_from_the_configuration(run_command: RunCommand, tmp_path: Path) -> None:
    with running(token=TOKEN) as url:
        without = run_command("trace", "--url", url)
        (tmp_path / "config.toml").write_text(f'[telemetry]\nread_token = "{TOKEN}"\n')
        brought = run_command("trace", "--url", url)
    assert without.exit_code == 1
    assert "403" in without.output
    assert "read_token" in without.output
    assert brought.exit_code == 0
    assert "turn 3" in brought.output


@pytest.mark.sockets
def test_a_server_that_is_not_there(run_command: RunCommand) -> None:
    with running() as url:
        pass
    result = run_command("trace", "--url", url)
    assert result.exit_code == 1
    assert f"No answer from {url}" in result.output
    assert "--url" in result.output


@pytest.mark.sockets
def test_a_server_without_turns(run_command: RunCommand) -> None:
    with running(turns=0) as url:
        result = run_command("trace", "--url", url)
    assert result.exit_code == 0
    assert "No turns yet." in result.output


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://127.0.0.1/"])
def test_an_address_that_is_none(run_command: RunCommand, url: str) -> None:
    result = run_command("trace", "--url", url)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


def a_page(serial: int, *numbers: int) -> bytes:
    turns = tuple(
        TurnRecord(
            serial=number,
            device="aa",
            session="",
            number=number,
            occasion="typed",
            outcome="finished",
            began_unix=0,
            began_ms=0,
            over_ms=1,
            attempts=(),
            marks=(),
            stages=(),
            lengths={},
            left_out=0,
        )
        for number in numbers
    )
    return to_json(TracePage(serial, ("aa",), turns))


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server")


async def test_following_shows_each_turn_once_also_after_a_restart(autojump_clock) -> None:
    pages = iter([a_page(2, 1, 2), a_page(2), a_page(3, 3), a_page(1), a_page(1, 1), a_page(2, 2)])
    asked: list[dict[str, str]] = []
    shown: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        page = next(pages, None)
        return httpx.Response(418) if page is None else httpx.Response(200, content=page)

    query = {"last": "10", "device": "aa"}
    with pytest.raises(CommandFailed, match="418"):
        await command._show_turns(
            client_of(answer), query, True, lambda turn: shown.append(turn.number)
        )
    assert shown == [1, 2, 3, 1, 2]
    assert [params.get("after") for params in asked] == [None, "2", "2", "3", None, "1", "2"]
    assert {params["device"] for params in asked} == {"aa"}
    assert trio.current_time() == 5


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(200, content=b"<html>"), "no xiaozhi-trio server of this version"),
        (httpx.Response(404, content=b"nothing"), "answers 404: no reason is given"),
        (httpx.Response(403, json={"message": "go\x1b[31m away"}), "403: go\\x1b[31m away"),
        (httpx.Response(403, json=["odd"]), "answers 403: no reason is given"),
        (httpx.Response(200, content=b" " * 100), "sends more than a server would"),
    ],
)
async def test_answers_that_are_none(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, told: str
) -> None:
    monkeypatch.setattr(command, "_MOST_BYTES", 99)
    with pytest.raises(CommandFailed) as caught:
        await command._read(client_of(lambda _: answer), {})
    assert told in caught.value.message


def test_help_does_not_load_what_only_the_command_needs() -> None:
    code = (
        "import sys; from xiaozhi_trio.cli.command import program;"
        "print([m for m in ('httpx', 'trio', 'cattrs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
