"""The real server as a process of its own, for tests with real engines or real clients."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LISTEN_SECONDS: Final = 30.0
_HEALTH_SECONDS: Final = 30.0
"""Libraries that are being loaded may hold the interpreter for seconds on a busy machine."""
_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
_LOG_SHOWN: Final = 4000
"""Characters of the log's end in an error."""

_LOOPBACK: Final = """
[server]
host = "127.0.0.1"
websocket_port = 0
http_port = 0
websocket_path = "/xiaozhi/v1/"
"""


class ServerProcessError(Exception):
    """The server did not start, stopped by itself or did not stop; the text holds its log."""


@attrs.frozen
class ServerProcess:
    """A server that runs on free ports of the loopback address."""

    websocket_url: str
    http_url: str
    """Without a slash at its end."""
    _log: Path

    @property
    def ota_url(self) -> str:
        """Where devices are sent to."""
        return f"{self.http_url}/xiaozhi/ota/"

    def health(self) -> Mapping[str, Any]:
        """What `/health` tells; blocks."""
        answer = httpx.get(f"{self.http_url}/health", timeout=_HEALTH_SECONDS)
        health: Mapping[str, Any] = answer.raise_for_status().json()
        return health

    def log(self, event: str, *, seconds: float = 5.0) -> Sequence[Mapping[str, Any]]:
        """The log lines of one event with their fields, as soon as there are any; blocks.

        Empty where none came within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not (lines := _lines(self._log, event)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return lines


@contextmanager
def server_process(
    folder: Path, config: str = "", *, engine_seconds: float = 300.0
) -> Iterator[ServerProcess]:
    """Run `xiaozhi-trio serve` for the block, once all engines are ready; blocks.

    `config` is TOML and holds all tables but `[server]` and `[state]`. `folder` takes the
    configuration, the state and the log. `engine_seconds` is the longest wait for the
    engines. Raises `ServerProcessError`.
    """
    file = folder / "config.toml"
    state = json.dumps(str(folder / "state"))
    file.write_text(f"{_LOOPBACK}\n[state]\ndirectory = {state}\n\n{config}", "utf-8")
    log = folder / "server.log"
    program = Path(sys.executable).with_name("xiaozhi-trio")
    command = [str(program), "--config", str(file), "--json-logs", "--log-level", "debug", "serve"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process,  # noqa: S603
    ):
        try:
            yield _started(process, log, engine_seconds)
        finally:
            _stop(process)
    if process.returncode:
        raise ServerProcessError(f"ended with {process.returncode}:\n{_end_of(log)}")


def _started(process: subprocess.Popen[bytes], log: Path, engine_seconds: float) -> ServerProcess:
    deadline = time.monotonic() + _LISTEN_SECONDS
    while not (serving := _lines(log, "serving")):
        _wait(process, log, deadline, "has not begun to serve")
    websocket, ota = urlsplit(serving[0]["websocket"]), urlsplit(serving[0]["ota"])
    server = ServerProcess(
        f"ws://127.0.0.1:{websocket.port}{websocket.path}", f"http://127.0.0.1:{ota.port}", log
    )
    deadline = time.monotonic() + engine_seconds
    while (health := server.health())["status"] != "ok":
        if health["status"] == "degraded":
            raise ServerProcessError(f"engines failed: {health['engines']}\n{_end_of(log)}")
        _wait(process, log, deadline, f"has not loaded its engines: {health['engines']}")
    return server


def _wait(process: subprocess.Popen[bytes], log: Path, deadline: float, complaint: str) -> None:
    if process.poll() is not None:
        raise ServerProcessError(f"ended with {process.returncode}:\n{_end_of(log)}")
    if time.monotonic() > deadline:
        raise ServerProcessError(f"{complaint}\n{_end_of(log)}")
    time.sleep(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _lines(log: Path, event: str) -> Sequence[Mapping[str, Any]]:
    lines = log.read_text("utf-8", "replace").splitlines(keepends=True)
    # What is no JSON is not of the logger but of a library; the last line may be half.
    bodies = [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "\n"]
    return [body for body in bodies if body.get("event") == event]


def _end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-_LOG_SHOWN:]
