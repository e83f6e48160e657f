"""Sessions recorded by a real server, replayed against it and against others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from pyogg import OpusFile

from xiaozhi_trio.config.settings import (
    PlayoutSettings,
    RecordingSettings,
    ServerSettings,
    Settings,
    StateSettings,
)
from xiaozhi_trio.engines.slots import EngineSet, EngineSlot
from xiaozhi_trio.server import Server, StartError
from xiaozhi_trio.testing import (
    LoudnessDetector,
    ScriptedLanguageModel,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    SimulatedDevice,
)
from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from click.testing import Result

    RunCommand = Callable[..., Result]

pytestmark = pytest.mark.sockets


@asynccontextmanager
async def serving(
    tmp_path: Path, *, record: str = "", reply: str = "I am fine.", heard: str = "how are you"
) -> AsyncIterator[str]:
    settings = Settings(
        server=ServerSettings(host="127.0.0.1", websocket_port=0, http_port=0, drain_seconds=3),
        state=StateSettings(directory=str(tmp_path / "state")),
        playout=PlayoutSettings(end_margin_ms=0),
        recording=RecordingSettings(directory=record),
    )
    engines = EngineSet(
        vad=EngineSlot(LoudnessDetector()),
        asr=EngineSlot(ScriptedRecognizer(heard)),
        llm=EngineSlot(ScriptedLanguageModel([reply])),
        tts=EngineSlot(ScriptedSynthesizer()),
    )
    server = await Server.build(settings, engines)
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(server.run)
        yield f"ws://127.0.0.1:{addresses.websocket_port}/xiaozhi/v1/"
        server.shutdown.set()


async def talk(url: str, *, version: int = 2) -> None:
    async with (
        dial(url, device_id="aa:bb:cc:dd:ee:01", client_id="c", binary_version=version) as link,
        trio.open_nursery() as nursery,
    ):
        device = SimulatedDevice(link, binary_version=version)
        nursery.start_soon(device.listen_to_server)
        await device.hello()
        await device.listen("auto")
        await device.speak(0.5)
        await device.silence(1.0)
        await device.wait_for("tts stop")
        nursery.cancel_scope.cancel()


async def replay(run_command: RunCommand, *arguments: str) -> Result:
    return await trio.to_thread.run_sync(partial(run_command, "replay", *arguments))


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_replay_against_the_same_server_gives_no_differences(
    tmp_path: Path, run_command: RunCommand, version: int
) -> None:
    recordings = tmp_path / "recordings"
    async with serving(tmp_path, record=str(recordings)) as url:
        await talk(url, version=version)
    recorded = only(recordings)
    for file in ("uplink.ogg", "downlink.ogg"):
        assert OpusFile(str(recorded / file)).buffer_length > 48_000
    async with serving(tmp_path) as url:
        result = await replay(run_command, str(recorded), "--url", url, "--tolerance-ms", "600")
        assert (result.exit_code, result.stdout) == (0, "no differences\n")
        result = await replay(run_command, str(recorded), "--url", url, "--speed", "3", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["same"]


async def test_a_changed_server_is_told(tmp_path: Path, run_command: RunCommand) -> None:
    recordings = tmp_path / "recordings"
    async with serving(tmp_path, record=str(recordings)) as url:
        await talk(url)
    recorded = str(only(recordings))
    async with serving(tmp_path, reply="I am fine. And you?", heard="who are you") as url:
        result = await replay(run_command, recorded, "--url", url, "--json", "--speed", "2")
    assert result.exit_code == 1
    found = {
        (difference["what"], difference["kind"]): (difference["recorded"], difference["replayed"])
        for difference in json.loads(result.stdout)["differences"]
    }
    assert found["text", "stt"] == ("'how are you'", "'who are you'")
    assert found["added", "tts sentence_start"] == ("", "'And you?'")


async def test_what_cannot_be_replayed_is_an_error(tmp_path: Path, run_command: RunCommand) -> None:
    result = await replay(run_command, str(tmp_path))
    assert result.exit_code == 2
    assert "is no recording of a session" in result.stderr
    recordings = tmp_path / "recordings"
    async with serving(tmp_path, record=str(recordings)) as url:
        await talk(url)
    recorded = only(recordings)
    result = await replay(run_command, str(recorded), "--url", url)
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    async with serving(tmp_path) as url:
        result = await replay(run_command, str(recorded), "--url", url.replace("/v1/", "/v9/"))
    assert result.exit_code == 2
    assert "does not let the device in" in result.stderr
    (recorded / "messages.jsonl").write_text('{"kind":"packet"}\n')
    result = await replay(run_command, str(recorded))
    assert result.exit_code == 2
    assert "messages.jsonl:1: " in result.stderr


LONG_REPLY = "I am fine. " * 12
"""Far from its end when the server is killed."""
KILLED = """
import sys, os, signal, trio
from pathlib import Path
sys.path[:0] = [{here!r}]
import test_replay_command as tests

async def main():
    folder = Path({folder!r})
    recordings = folder / "recordings"
    async with tests.serving(folder, record=str(recordings), reply=tests.LONG_REPLY) as url:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tests.talk, url)
                while not tests.has_a_reply(recordings):
                    await trio.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


def has_a_reply(recordings: Path) -> bool:
    """Whether all that was said, and some of the answer, are in the files already."""
    return any(
        messages.read_bytes().count(b'"sentence_start"') > 2
        for messages in recordings.glob("*/messages.jsonl")
    )


async def test_a_recording_of_a_killed_server_plays_and_replays(
    tmp_path: Path, run_command: RunCommand
) -> None:
    here = str(Path(__file__).parent)
    program = KILLED.format(here=here, folder=str(tmp_path))
    ended = await trio.run_process(
        [sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL
    )
    assert ended.returncode == -signal.SIGKILL
    recorded = only(tmp_path / "recordings")
    assert b'"ended"' not in (recorded / "messages.jsonl").read_bytes()
    assert OpusFile(str(recorded / "uplink.ogg")).buffer_length / 2 > 48_000
    async with serving(tmp_path, reply=LONG_REPLY) as url:
        result = await replay(
            run_command, str(recorded), "--url", url, "--tolerance-ms", "600", "--json"
        )
    body = json.loads(result.stdout)
    assert "the recording has no end" in body["notes"]
    assert {difference["what"] for difference in body["differences"]} <= {"added", "speech_length"}


async def test_a_server_that_cannot_record_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "recordings").write_text("a file")
    settings = attrs.evolve(
        Settings(), recording=RecordingSettings(directory=str(tmp_path / "recordings"))
    )
    with pytest.raises(StartError, match="cannot be recorded"):
        await Server.build(settings)


def test_serve_says_that_it_records(
    tmp_path: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        settings: Any = None

        async def serve(self, settings: Settings, *, task_status: Any) -> None:
            self.settings = settings
            task_status.started(
                attrs.make_class(
                    "A",
                    {
                        "ota_urls": attrs.field(default=()),
                        "websocket_urls": attrs.field(default=()),
                    },
                )()
            )

    fake = Fake()
    monkeypatch.setattr("xiaozhi_trio.server.serve", fake.serve)
    result = run_command("serve", "--record", str(tmp_path / "kept"))
    assert fake.settings.recording.directory == str(tmp_path / "kept")
    assert (
        f"Every session is recorded, with all that is said, in {tmp_path / 'kept'}" in result.stdout
    )
    assert "录制" in result.stdout
    assert "recorded" not in run_command("serve").stdout
