"""SIGKILL at any moment: the next process serves, and what the last one wrote is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx
import pytest
import trio
from soak_engines import Plot
from soak_server import soak_server
from trio_websocket import ConnectionRejected

from xiaozhi_trio.bench.load import device_id
from xiaozhi_trio.testing import SimulatedDevice
from xiaozhi_trio.testing.websocket_link import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

DEVICES = 20
KILLS = 2
PATIENCE_SECONDS = 60


@pytest.mark.parametrize(("task", "least_steps"), [("secret", 5), ("models", 30)])
def test_whoever_is_killed_while_writing_leaves_what_the_next_can_use(
    tmp_path: Path, task: str, least_steps: int
) -> None:
    program = Path(__file__).with_name("soak_crash.py")
    done = subprocess.run(
        [sys.executable, str(program), task, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least_steps


class _Home:
    """Devices with tokens of their own, and the server that they always come back to."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._ports: Mapping[str, int] = {"websocket_port": 0, "http_port": 0}
        self._tokens: Sequence[str] = ()

    @asynccontextmanager
    async def serving(self, log: IO[bytes]) -> AsyncIterator[int]:
        """A server, from the second on with the ports of the first; gives its process id."""
        async with soak_server(log) as server:
            self._ports = await server.ask(
                "start", state=str(self._state), authentication=True, **self._ports
            )
            yield server.pid

    @property
    def _url(self) -> str:
        return f"ws://127.0.0.1:{self._ports['websocket_port']}/xiaozhi/v1/"

    async def provision(self) -> None:
        async with httpx.AsyncClient() as client:
            self._tokens = [await self._token(client, number) for number in range(DEVICES)]

    async def _token(self, client: httpx.AsyncClient, number: int) -> str:
        answer = await client.post(
            f"http://127.0.0.1:{self._ports['http_port']}/xiaozhi/ota/",
            headers={"Device-Id": device_id(number), "Client-Id": "soak"},
            json={},
        )
        token: str = answer.raise_for_status().json()["websocket"]["token"]
        return token

    @asynccontextmanager
    async def device(self, number: int, token: str | None = None) -> AsyncIterator[SimulatedDevice]:
        async with dial(
            self._url,
            device_id=device_id(number),
            client_id="soak",
            token=self._tokens[number] if token is None else token,
        ) as link:
            device = SimulatedDevice(link)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(device.listen_to_server)
                await device.hello()
                yield device
                nursery.cancel_scope.cancel()

    async def listen_until_the_end(self, number: int, heard: trio.MemorySendChannel[int]) -> None:
        async with self.device(number) as device:
            await device.detect(Plot.LLM_RAVES.value)
            await device.wait_for("audio", count=2)
            await heard.send(number)
            await device.wait_for_hang_up()

    async def come_back(self, number: int) -> None:
        """Try until the server is there again, and have a question answered."""
        while True:
            try:
                async with self.device(number) as device:
                    await device.detect(Plot.WELL.value)
                    await device.wait_for("tts stop")
                    assert device.of_kind("audio")
                    return
            except OSError:
                # Refused: nobody listens yet.
                await trio.sleep(0.05)

    async def bring_back(self, returned: trio.Event) -> None:
        """Let all devices come back."""
        async with trio.open_nursery() as nursery:
            for number in range(DEVICES):
                nursery.start_soon(self.come_back, number)
        returned.set()


@pytest.mark.sockets
async def test_devices_are_served_again_at_once_with_the_tokens_they_have(tmp_path: Path) -> None:
    home = _Home(tmp_path / "state")
    secrets = set()
    with trio.fail_after(PATIENCE_SECONDS), (tmp_path / "server.log").open("wb") as log:
        for kill in range(KILLS):
            async with home.serving(log) as process_id, trio.open_nursery() as nursery:
                if not kill:
                    await home.provision()
                told, heard = trio.open_memory_channel[int](DEVICES)
                for number in range(DEVICES):
                    nursery.start_soon(home.listen_until_the_end, number, told)
                for _ in range(DEVICES):
                    await heard.receive()
                secrets.add((tmp_path / "state" / "token-secret").read_bytes())
                os.kill(process_id, signal.SIGKILL)
            returned = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(home.bring_back, returned)
                async with home.serving(log):
                    await returned.wait()
        async with home.serving(log):
            with pytest.RaisesGroup(
                pytest.RaisesExc(ConnectionRejected, check=lambda error: error.status_code == 401),
                flatten_subgroups=True,
            ):
                async with home.device(0, token="forged"):
                    pytest.fail("it was let in")
    assert len(secrets) == 1
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"token-secret"}
