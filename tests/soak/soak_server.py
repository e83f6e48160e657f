"""A server with the soak's engines and impatient limits, in a process of its own.

Run as a program; it answers `start` and `measure` until its stdin ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio
from soak_census import census
from soak_engines import Troupe

from xiaozhi_trio.bench.line_process import LineProcess, answer_requests
from xiaozhi_trio.collector import calm_collector
from xiaozhi_trio.config.settings import (
    AuthenticationSettings,
    ConversationSettings,
    LimitSettings,
    ListeningSettings,
    LoggingSettings,
    ServerSettings,
    Settings,
    StateSettings,
    TelemetrySettings,
)
from xiaozhi_trio.server import Server, StartError
from xiaozhi_trio.telemetry.logging import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import IO

IDLE_SECONDS = 5.0
"""A device that vanished without a sign is let go after these."""


def settings(state: str, websocket_port: int, http_port: int, *, authentication: bool) -> Settings:
    return Settings(
        server=ServerSettings(host="127.0.0.1", websocket_port=websocket_port, http_port=http_port),
        limits=LimitSettings(handshake_seconds=3, hello_seconds=3, send_seconds=2),
        authentication=AuthenticationSettings(enabled=authentication),
        listening=ListeningSettings(end_silence_ms=300, idle_seconds=IDLE_SECONDS),
        conversation=ConversationSettings(
            max_reply_characters=300,
            recognition_seconds=2,
            first_token_seconds=2,
            synthesis_seconds=2,
        ),
        state=StateSettings(directory=state),
        # What is remembered on purpose is soon full, so that the rest can be told from it.
        telemetry=TelemetrySettings(turns_per_device=2, devices=10),
        logging=LoggingSettings(level="INFO", json=True),
    )


class LongestStep(trio.abc.Instrument):
    """How long one task has kept all others waiting.

    In seconds of the processor, so that it does not count what else the machine does.
    """

    def __init__(self, ignored: trio.lowlevel.Task) -> None:
        self._ignored = ignored
        self._began = 0.0
        self.seconds = 0.0
        self.task = ""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.thread_time() - self._began
        if seconds > self.seconds and task is not self._ignored:
            self.seconds, self.task = seconds, task.name


class Served:
    """The server and what is asked of it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._troupe = Troupe()
        self._server: Server | None = None
        # A census takes longer than anything that serves.
        self._longest = LongestStep(trio.lowlevel.current_task())

    async def start(
        self,
        *,
        state: str,
        websocket_port: int = 0,
        http_port: int = 0,
        authentication: bool = False,
    ) -> Mapping[str, Any]:
        """Begin to serve; gives the ports."""
        chosen = settings(state, websocket_port, http_port, authentication=authentication)
        configure_logging(chosen.logging)
        self._server = await Server.build(chosen, self._troupe.engines)
        calm_collector()
        trio.lowlevel.add_instrument(self._longest)
        addresses = await self._nursery.start(self._server.run)
        return {"websocket_port": addresses.websocket_port, "http_port": addresses.http_port}

    async def measure(self) -> Mapping[str, Any]:
        """What the process holds, and what has happened in it."""
        assert self._server is not None
        await trio.lowlevel.checkpoint()
        counts = self._server.counters.snapshot()
        return {
            "census": attrs.asdict(census()),
            "counts": [[count.name, dict(count.labels), count.value] for count in counts],
            "busy": self._troupe.busy,
            "crashes": self._troupe.crashes,
            "longest_step": [self._longest.seconds, self._longest.task],
        }


@asynccontextmanager
async def soak_server(log: IO[bytes]) -> AsyncIterator[LineProcess]:
    """Run this program for the block; nothing serves before it is asked to `start`."""
    # Times taken under a tracer tell nothing.
    untraced = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    process = await trio.lowlevel.open_process(
        [sys.executable, str(Path(__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=untraced,
    )
    server = LineProcess(process, "server")
    try:
        yield server
    finally:
        await server.aclose()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        await answer_requests(
            {"start": served.start, "measure": served.measure}, failures=(StartError,)
        )
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
