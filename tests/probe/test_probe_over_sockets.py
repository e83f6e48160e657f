"""The probe against this server, and from a copy of its one file."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner

from xiaozhi_trio.cli import handshake_probe
from xiaozhi_trio.cli.command import program
from xiaozhi_trio.cli.handshake_probe import (
    Address,
    Dialler,
    Papers,
    Surveyor,
    Unreachable,
    Verdict,
)
from xiaozhi_trio.config.settings import (
    AuthenticationSettings,
    PlayoutSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xiaozhi_trio.cli.handshake_probe import Report

pytestmark = pytest.mark.sockets


@asynccontextmanager
async def serving(tmp_path: Path, *, authentication: bool) -> AsyncIterator[tuple[str, str]]:
    """The WebSocket and OTA addresses of a server with scripted engines."""
    settings = Settings(
        server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0, drain_seconds=1),
        state=StateSettings(directory=str(tmp_path)),
        playout=PlayoutSettings(end_margin_ms=0),
        authentication=AuthenticationSettings(enabled=authentication),
    )
    engines = EngineSet(
        vad=EngineSlot(LoudnessDetector()),
        asr=EngineSlot(ScriptedRecognizer()),
        llm=EngineSlot(ScriptedLanguageModel(["Hi."])),
        tts=EngineSlot(ScriptedSynthesizer()),
    )
    server = await Server.build(settings, engines)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        yield (
            f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/",
            f"http://127.0.0.1:{addresses.http_port}/xiaozhi/ota/",
        )
        server.shutdown.set()


async def survey(url: str, *, quick: bool, token: str = "") -> Report:
    any_certificate = handshake_probe.unverified_context()
    return await Surveyor(
        address=Address.parse(url),
        papers=Papers(handshake_probe.DEVICE_ID, handshake_probe.CLIENT_ID, token),
        seconds=10,
        quick=quick,
        insecure=False,
        tell=lambda _: None,
        trusting=ssl.create_default_context(),
        unverified=any_certificate,
    ).run()


@pytest.mark.parametrize("authentication", [False, True])
async def test_this_server_raises_no_alarm(tmp_path, authentication) -> None:
    async with serving(tmp_path, authentication=authentication) as (_, ota):
        report = await survey(ota, quick=not authentication)
    assert report.findings() == {}
    assert report.exit_status == 0
    refused = {row.step for row in report.rows if row.status in {400, 401, 404}}
    assert refused == {"wrong-path", "no-device-id"} | (
        {"no-token", "empty-token", "wrong-token", "expired-token", "foreign-token"}
        if authentication
        else set()
    )
    turns = {row.step for row in report.rows if "packets, " in row.answered.en}
    assert turns == (
        {client.key for client in handshake_probe.TURN_CLIENTS} if authentication else {"text-v1"}
    )


async def test_this_server_without_a_token(tmp_path) -> None:
    async with serving(tmp_path, authentication=True) as (websocket, _):
        report = await survey(websocket, quick=True)
    assert set(report.findings()) == {"token_needed"}
    assert all(row.verdict is Verdict.SKIPPED for row in report.rows[-5:])


async def test_the_websocket_address_may_be_given(tmp_path) -> None:
    async with serving(tmp_path, authentication=False) as (websocket, _):
        report = await survey(websocket, quick=True)
    assert report.findings() == {}


async def test_a_port_on_which_nobody_listens(unused_port) -> None:
    report = await survey(f"ws://127.0.0.1:{unused_port}/", quick=True)
    assert report.exit_status == 2
    assert report.rows[0].answered.en == "Connection refused"


@pytest.fixture
async def unused_port() -> int:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


async def test_a_name_that_is_none() -> None:
    dialler = Dialler(
        Address.parse("ws://no-such-host.invalid/"),
        5,
        ssl.create_default_context(),
        handshake_probe.unverified_context(),
    )
    with pytest.raises(Unreachable, match=r"no-such-host\.invalid|no TCP connection"):
        async with dialler.open():
            pass


def test_from_a_copy_of_the_file(tmp_path) -> None:
    copy = shutil.copy(Path(handshake_probe.__file__), tmp_path / "elsewhere.py")
    result = subprocess.run(
        [sys.executable, "-I", copy, "ws://127.0.0.1:1/", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (result.returncode, result.stderr) == (2, "")
    assert json.loads(result.stdout)["findings"][0]["reason"] == "unreachable"


def test_as_a_command() -> None:
    result = CliRunner().invoke(program, ["probe", "ws://127.0.0.1:1/", "--lang", "en"])
    assert result.exit_code == 2
    assert "FAULT  unreachable  (reach)" in result.stdout


def test_the_options_of_the_command_are_those_of_the_file() -> None:
    result = CliRunner().invoke(program, ["probe", "--help"])
    assert result.exit_code == 0
    assert "usage: xiaozhi-trio probe" in result.stdout
    assert "--insecure" in result.stdout
