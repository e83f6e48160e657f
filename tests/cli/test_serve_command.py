from __future__ import annotations

import errno
import io
import json
import socket
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from loguru import logger
from rich.console import Console

import xiaozhi_trio
from xiaozhi_trio.cli import banner
from xiaozhi_trio.cli.banner import show_banner
from xiaozhi_trio.config.loader import parse_settings
from xiaozhi_trio.config.settings import Settings
from xiaozhi_trio.server import StartError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    RunCommand = Callable[..., Result]


@attrs.frozen
class Addresses:
    ota_urls: tuple[str, ...] = (
        "http://192.168.1.10:8003/xiaozhi/ota/",
        "http://10.0.0.2:8003/xiaozhi/ota/",
    )
    websocket_urls: tuple[str, ...] = ("ws://192.168.1.10:8000/xiaozhi/v1/",)


@attrs.define
class FakeServer:
    """Stands in for `xiaozhi_trio.server`."""

    fails_to_start: BaseException | None = None
    fails_later: BaseException | None = None
    settings: Settings | None = None

    async def serve(
        self,
        settings: Settings,
        *,
        task_status: trio.TaskStatus[Addresses] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.settings = settings
        if self.fails_to_start is not None:
            raise self.fails_to_start
        logger.bind(device="d").info("listening")
        task_status.started(Addresses())
        await trio.lowlevel.checkpoint()
        if self.fails_later is not None:
            raise self.fails_later


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setattr(xiaozhi_trio, "server", fake, raising=False)
    return fake


def test_a_server_that_ends_is_a_success(run_command: RunCommand, server: FakeServer) -> None:
    result = run_command("serve")
    assert result.exit_code == 0
    assert server.settings == Settings()
    for url in (*Addresses().ota_urls, *Addresses().websocket_urls):
        assert f"    {url}\n" in result.stdout
    assert "listening device=d" in result.stderr


def test_the_configuration_reaches_the_server(
    run_command: RunCommand, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("[server]\nwebsocket_port = 9000\n")
    run_command("--config", "c.toml", "serve")
    assert server.settings is not None
    assert server.settings.server.websocket_port == 9000


def test_a_wrong_configuration_starts_nothing(
    run_command: RunCommand, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[server]\nwebsocket_port = 70000\n")
    assert run_command("serve").exit_code == 2
    assert server.settings is None


def test_json_logs_tell_the_addresses_in_the_log(
    run_command: RunCommand, server: FakeServer
) -> None:
    result = run_command("serve", "--json-logs")
    assert result.stdout == ""
    event = json.loads(result.stderr.splitlines()[-1])
    assert event["event"] == "serving"
    assert event["ota"] == " ".join(Addresses().ota_urls)
    assert event["websocket"] == Addresses().websocket_urls[0]


def test_a_start_failure_is_told_without_traceback(
    run_command: RunCommand, server: FakeServer
) -> None:
    server.fails_to_start = StartError("cannot listen on port 8000; choose another")
    result = run_command("serve")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        "Error: The server cannot start: cannot listen on port 8000; choose another\n",
    )


def test_a_bug_at_the_start_is_not_dressed_up(run_command: RunCommand, server: FakeServer) -> None:
    server.fails_to_start = ValueError("bug")
    assert isinstance(run_command("serve").exception, ExceptionGroup)


def test_what_fails_later_is_not_a_start_failure(
    run_command: RunCommand, server: FakeServer
) -> None:
    server.fails_later = OSError(errno.EADDRINUSE, "in use")
    assert isinstance(run_command("serve").exception, ExceptionGroup)


@pytest.mark.sockets
def test_a_port_in_use_is_named(run_command: RunCommand, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (tmp_path / "config.toml").write_text(
            f'[server]\nhost = "127.0.0.1"\nwebsocket_port = {port}\nhttp_port = 0\n'
        )
        result = run_command("serve")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        f"Error: The server cannot start: cannot listen on 127.0.0.1 port {port}" in result.stderr
    )


class TestBanner:
    def test_a_terminal_gets_a_panel_with_whole_addresses(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = io.StringIO()
        monkeypatch.setattr(
            banner, "Console", lambda: Console(file=stream, force_terminal=True, width=90)
        )
        show_banner(Settings(), Addresses())
        shown = stream.getvalue()
        assert "╭" in shown
        assert xiaozhi_trio.__version__ in shown
        for url in (*Addresses().ota_urls, *Addresses().websocket_urls):
            assert url in shown

    def test_it_tells_what_loads_and_who_may_connect(self) -> None:
        text = banner.banner_text(Settings(), Addresses())
        assert (
            "Engines: vad silero, asr whisper, llm llama, tts bilingual (kokoro + hibari)" in text
        )
        assert "Authentication is off" in text

    def test_authentication_that_is_on_is_not_a_warning(self) -> None:
        document = '[authentication]\nenabled = true\n[tts]\nengine = "kokoro"'
        settings = parse_settings(document, file="c.toml", environment={})
        text = banner.banner_text(settings, Addresses())
        assert "Authentication" not in text
        assert "tts kokoro\n" in text
