"""A session on tape: what reaches the files, and what a slow or full disk does."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import attrs
import pytest
import trio
from pyogg import OpusFile

from xiaozhi_trio.audio.ogg_opus import read_packets
from xiaozhi_trio.audio.opus import OpusEncoder
from xiaozhi_trio.config.engines import LanguageModelSettings, OpenAiLanguageModelSettings
from xiaozhi_trio.config.settings import (
    AgentSettings,
    ListeningSettings,
    RecordingSettings,
    Settings,
)
from xiaozhi_trio.session import recording as recording_module
from xiaozhi_trio.session.recording import MAX_WAITING, Recorder, Tape
from xiaozhi_trio.store import recordings as recordings_module
from xiaozhi_trio.store.recording_format import HEADING_FILE
from xiaozhi_trio.store.recordings import RecordingUnusable
from xiaozhi_trio.telemetry.counters import Counters
from xiaozhi_trio.testing import Tone
from xiaozhi_trio.wire import binary
from xiaozhi_trio.wire.closing import PEER_GONE
from xiaozhi_trio.wire.handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HANDSHAKE = Handshake(device_id="aa:bb:cc:dd:ee:01", client_id="c", token="very-secret-token")
SESSION = "5f0e7a52-8f0b-4a35-9a6e-0a0f4c6d2e11"


def tone(frame_ms: int = 60, rate: int = 16_000) -> bytes:
    encoder = OpusEncoder(rate, frame_ms=frame_ms)
    return encoder.encode(Tone(hertz=300.0, level=9000, ms_per_character=frame_ms).pcm(" ", rate))


def hello(version: int = 1) -> str:
    return json.dumps(
        {"type": "hello", "version": version, "transport": "websocket", "audio_params": {}}
    )


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await trio.sleep(0.01)
    pytest.fail("did not come true within 5 s")


@pytest.fixture
def record(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "recordings")


class Recording:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counters = Counters()

    def recorder(self, settings: Settings | None = None, **more: Any) -> Recorder:
        recording = RecordingSettings(directory=str(self.folder), **more)
        return Recorder(attrs.evolve(settings or Settings(), recording=recording), self.counters)

    @property
    def path(self) -> Path:
        (path,) = self.folder.iterdir()
        return path

    def lines(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.path / "messages.jsonl").read_bytes().splitlines()
        ]

    def stopped(self) -> int:
        return sum(
            count.value for count in self.counters.snapshot() if count.name == "recordings_stopped"
        )


async def test_everything_that_passes_is_in_the_files(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    packet = tone()
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", hello())
        tape.take("server", '{"type":"hello","audio_params":{"sample_rate":24000}}')
        tape.take("device", packet)
        tape.take("device", b"")
        tape.take("device", "no json")
        tape.take("device", '["a", "list"]')
        tape.take("server", tone(rate=24_000))
        tape.ended(PEER_GONE)
    lines = record.lines()
    assert [line["kind"] for line in lines] == [
        "message",
        "message",
        "packet",
        "binary",
        "text",
        "text",
        "packet",
        "ended",
    ]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert lines[3]["base64"] == ""
    assert lines[-1] == {
        "kind": "ended",
        "at": lines[-1]["at"],
        "reason": "peer_gone",
        "code": 1000,
    }
    assert read_packets((record.path / "uplink.ogg").read_bytes())[0] == packet
    for file in ("uplink.ogg", "downlink.ogg"):
        assert OpusFile(str(record.path / file)).buffer_length / 2 / 48 == pytest.approx(60, abs=7)


async def test_only_its_owner_may_read_it(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    async with recorder.tape(attrs.evolve(HANDSHAKE, device_id="../../x y"), SESSION) as tape:
        tape.take("device", tone())
    assert record.path.name.endswith(f"Z_..-..-x-y_{SESSION}")
    for path in (record.folder, record.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for file in record.path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_no_secret_is_recorded(record: Recording) -> None:
    settings = Settings(
        llm=LanguageModelSettings(openai=OpenAiLanguageModelSettings(api_key="sk-our-own-key"))
    )
    recorder = record.recorder(settings)
    await recorder.prepare()
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take(
            "server",
            '{"type":"mcp","payload":{"params":{"capabilities":'
            '{"vision":{"url":"u","token":"vision-token"}},"list":[{"token":"in-a-list"}]}}}',
        )
        tape.take("device", "Authorization: Bearer very-secret-token")
    content = b"".join(file.read_bytes() for file in record.path.iterdir())
    for secret in (b"very-secret-token", b"sk-our-own-key", b"vision-token", b"in-a-list"):
        assert secret not in content
    heading = json.loads((record.path / "handshake.json").read_bytes())
    assert heading["device"] == "aa:bb:cc:dd:ee:01"
    assert heading["settings"]["llm"]["openai"]["api_key"] == "***"
    assert heading["settings"]["asr"]["openai"]["api_key"] == ""
    assert heading["settings"]["listening"]["end_silence_ms"] == 600


async def test_the_settings_are_those_of_the_devices_agent(record: Recording) -> None:
    patient = AgentSettings(
        name="grandma", devices=("*:01",), listening=ListeningSettings(end_silence_ms=1200)
    )
    recorder = record.recorder(Settings(agents=(patient,)))
    await recorder.prepare()
    async with recorder.tape(HANDSHAKE, SESSION):
        pass
    heading = json.loads((record.path / HEADING_FILE).read_bytes())
    assert heading["settings"]["listening"]["end_silence_ms"] == 1200


async def test_no_secret_is_recorded_in_whatever_it_comes(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    json_frame = binary.pack(b'{"token":"in-a-frame","text":"\xe4\xbd\xa0"}', 2, 7)
    json_frame = json_frame[:2] + b"\x00\x01" + json_frame[4:]
    harmless = bytes(range(256))
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", hello(2))
        tape.take("device", '{"type":"mcp","payload":{"token":12345678,"tokens":7}}')
        tape.take("device", json_frame)
        tape.take("device", harmless)
    _, numbers, framed, odd, _ = record.lines()
    assert numbers["body"]["payload"] == {"token": "***", "tokens": 7}
    assert base64.b64decode(framed["base64"]) == json_frame.replace(b"in-a-frame", b"***")
    assert base64.b64decode(odd["base64"]) == harmless


@pytest.mark.parametrize("version", [2, 3])
async def test_the_framing_is_that_of_the_hello(record: Recording, version: int) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    packet = tone()
    malformed = binary.pack(packet, version, 7)[:-1]
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", '{"type":"hello","version":"odd"}')
        tape.take("device", hello(version))
        tape.take("device", hello(1))
        tape.take("device", binary.pack(packet, version, 7))
        tape.take("device", malformed)
    *_, framed, broken, _ = record.lines()
    assert framed["kind"] == "packet"
    assert framed.get("timestamp", 0) == (7 if version == 2 else 0)
    assert base64.b64decode(broken["base64"]) == malformed
    assert read_packets((record.path / "uplink.ogg").read_bytes())[0] == packet


async def test_json_that_is_nested_too_deep_is_kept_as_text(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    deep = '{"a":' * 500 + "1" + "}" * 500
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", deep)
    assert record.lines()[0]["text"] == deep


async def test_silence_stands_where_nothing_was_said(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    packet = tone()
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", packet)
        await trio.sleep(1)
        tape.take("device", packet)
        tape.take("device", packet)
    packets = read_packets((record.path / "uplink.ogg").read_bytes())
    numbers = [line["number"] for line in record.lines() if line["kind"] == "packet"]
    assert [packets[number] for number in numbers] == [packet] * 3
    assert numbers[0] == 0
    assert numbers[2] == numbers[1] + 1 > 5
    length = OpusFile(str(record.path / "uplink.ogg")).buffer_length / 2 / 48_000
    assert 0.95 < length < 1.35


async def test_what_the_disk_is_too_slow_for_is_left_out_and_told(
    record: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "_GATHER_SECONDS", 0.0)
    recorder = record.recorder()
    await recorder.prepare()
    slow = threading.Event()
    original = recording_module.RecordedSession.write

    def write(self: Any, entries: Any) -> None:
        assert slow.wait(10)
        original(self, entries)

    monkeypatch.setattr(recording_module.RecordedSession, "write", write)
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        for _ in range(MAX_WAITING + 3):
            tape.take("device", "x")
        tape.take("server", "y")
        slow.set()
        await until(lambda: not tape.waiting())
        tape.take("device", "z")
    lines = record.lines()
    assert len(lines) == MAX_WAITING + 3
    assert lines[-3] == {"kind": "left_out", "at": lines[-3]["at"], "device": 3, "server": 1}
    assert lines[-2]["text"] == "z"


async def test_a_tape_is_bounded_in_bytes_and_told_at_its_end(autojump_clock: object) -> None:
    tape = Tape()
    for _ in range(5):
        tape.take("server", b"x" * 300_000)
    assert len(tape.waiting()) == 3
    tape.finish()
    tape.finish()
    *_, left_out, ended = tape.waiting()
    assert (left_out.device, left_out.server) == (0, 2)
    assert ended.reason == "cut_short"
    tape.written(5)
    assert tape.waiting() == ()


async def test_a_full_recording_says_so_and_the_session_goes_on(record: Recording) -> None:
    recorder = record.recorder(session_megabytes=1)
    await recorder.prepare()
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        for number in range(4):
            tape.take("device", str(number) * 400_000)
            await until(lambda: not tape.waiting())
    lines = record.lines()
    assert [line["kind"] for line in lines] == ["text", "text", "stopped"]
    assert "session_megabytes" in lines[-1]["reason"]
    assert record.stopped() == 1


async def test_a_disk_that_fails_ends_the_recording_only(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    record.folder.rmdir()
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", "lost")
        await until(lambda: record.stopped() == 1)
        tape.take("device", "lost too")
        assert tape.waiting() == ()


async def test_a_cancelled_session_is_recorded_to_its_end(record: Recording) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    with trio.CancelScope() as scope:
        async with recorder.tape(HANDSHAKE, SESSION) as tape:
            await trio.sleep(0.05)
            tape.take("device", "said at last")
            scope.cancel()
            await trio.sleep_forever()
    assert [line["kind"] for line in record.lines()] == ["text", "ended"]
    assert record.lines()[-1]["reason"] == "cut_short"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the thread of the recordings."""
    monkeypatch.setattr(recording_module, "_LAST_WRITE_SECONDS", 0.1)


@asynccontextmanager
async def busy(recorder: Recorder) -> AsyncIterator[None]:
    """The thread of the recordings has other things to do."""
    somebody = object()
    await recorder._limiter.acquire_on_behalf_of(somebody)
    try:
        yield
    finally:
        recorder._limiter.release_on_behalf_of(somebody)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_busy_disk_holds_no_connection_and_the_files_are_closed_later(
    record: Recording, impatient: None, is_cancelled: bool
) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    with trio.fail_after(3), trio.CancelScope() as session:
        async with AsyncExitStack() as stack:
            tape = await stack.enter_async_context(recorder.tape(HANDSHAKE, SESSION))
            await until(lambda: bool(list(record.folder.glob("*/handshake.json"))))
            async with busy(recorder):
                tape.take("device", "said at last")
                await trio.sleep(0.5)
                if is_cancelled:
                    session.cancel()
                await stack.aclose()
    assert record.stopped() == 1
    assert tape.waiting() == ()
    [name] = recorder._recordings._open
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.keep_tidy)
        await until(lambda: not recorder._recordings._open)
        nursery.cancel_scope.cancel()
    assert name == record.path.name


async def test_a_disk_that_is_busy_all_along_holds_no_connection_either(
    record: Recording, impatient: None
) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    with trio.fail_after(3):
        async with busy(recorder), recorder.tape(HANDSHAKE, SESSION) as tape:
            tape.take("device", "lost")
    assert record.stopped() == 1
    assert not list(record.folder.iterdir())


async def test_files_that_cannot_be_closed_keep_no_other_from_it(
    record: Recording, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = record.recorder()
    await recorder.prepare()
    with trio.fail_after(3):
        async with AsyncExitStack() as stack:
            tapes = [
                await stack.enter_async_context(recorder.tape(HANDSHAKE, f"{SESSION[:-1]}{number}"))
                for number in range(2)
            ]
            await until(lambda: len(list(record.folder.glob("*/handshake.json"))) == len(tapes))
            async with busy(recorder):
                await stack.aclose()
    closed: list[object] = []
    close = recording_module.RecordedSession.close

    def close_badly(session: Any) -> None:
        closed.append(session)
        close(session)
        raise OSError("cannot close")

    monkeypatch.setattr(recording_module.RecordedSession, "close", close_badly)
    await recorder.prepare()
    assert len(closed) == 2


async def test_a_folder_that_cannot_be_used_is_told_at_the_start(record: Recording) -> None:
    record.folder.write_text("a file")
    with pytest.raises(RecordingUnusable, match=r"--record or \[recording\] directory"):
        await record.recorder().prepare()


async def test_old_recordings_go_while_nobody_speaks(
    record: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "_TIDY_SECONDS", 0.01)
    recorder = record.recorder()
    await recorder.prepare()
    old = record.folder / f"20200101T000000Z_d_{SESSION}"
    old.mkdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.keep_tidy)
        await until(lambda: not old.exists())
        nursery.cancel_scope.cancel()


async def test_a_full_disk_leaves_no_recording_open(tmp_path, monkeypatch) -> None:
    def full(descriptor: int, mode: str) -> BinaryIO:
        os.close(descriptor)
        return cast("BinaryIO", Path("/dev/full").open(mode))

    monkeypatch.setattr(recordings_module.os, "fdopen", full)
    settings = attrs.evolve(Settings(), recording=RecordingSettings(directory=str(tmp_path)))
    counters = Counters()
    recorder = Recorder(settings, counters)
    async with recorder.tape(HANDSHAKE, SESSION) as tape:
        tape.take("device", hello())
        await until(lambda: "recordings_stopped" in str(counters.snapshot()))
    assert not recorder._recordings._open
