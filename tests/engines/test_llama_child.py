from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trio

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm import llama_child
from xiaozhi_trio.engines.llm.llama_child import LlamaChild
from xiaozhi_trio.engines.llm.llama_process import ModelParameters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.sockets

PATIENCE = 5
PARAMETERS = ModelParameters(file="model.gguf", context_tokens=512, threads=1, api_key="secretkey")
LIBRARY = """
import signal
from types import SimpleNamespace
print("not the answer")
class CommonParams(SimpleNamespace):
    def __init__(self):
        super().__init__(
            model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
        )
class Server:
    def __init__(self, parameters):
        if "broken" in parameters.model.path:
            raise RuntimeError("Failed to init server")
        self.listening_address = "http://127.0.0.1:9"
    def __del__(self):
        signal.pause()
    def handle_chat_completions(self, request, callback):
        pass
"""
"""Stands for xllamacpp; its server cannot be let go of."""
HOLDER = """
import sys, trio
from xiaozhi_trio.engines.llm.llama_child import LlamaChild
from xiaozhi_trio.engines.llm.llama_process import ModelParameters
async def main():
    parameters = ModelParameters(file="model.gguf", context_tokens=512, threads=1)
    print((await LlamaChild.start(parameters)).pid, flush=True)
    await trio.sleep_forever()
trio.run(main)
"""


def shell(script: str, url: str = "http://127.0.0.1:9") -> Sequence[str]:
    """A process that reads its parameters and then does `script`, to which $0 is the answer."""
    answer = orjson.dumps({"url": url}).decode()
    return ["/bin/sh", "-c", f"read -r parameters; {script}", answer]


SERVE = 'printf "%s\\n" "$0"; '


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


@pytest.mark.usefixtures("library")
async def test_process_serves_and_ends_with_its_standard_input() -> None:
    child = await LlamaChild.start(PARAMETERS)
    assert child.running
    # Ctrl-C in a terminal does not reach it.
    assert os.getsid(child.pid) == child.pid
    with trio.fail_after(llama_child.CLOSE_SECONDS):
        await child.aclose()
    assert not child.running
    assert child._process.returncode == 0


@pytest.mark.usefixtures("library")
def test_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()

    async def wait_for_the_end() -> None:
        # Nobody's child any more, so nothing tells of its end.
        with trio.fail_after(PATIENCE):
            while not has_ended(pid):  # noqa: ASYNC110
                await trio.sleep(0.01)

    trio.run(wait_for_the_end)


@pytest.mark.usefixtures("library")
async def test_broken_model_is_reported() -> None:
    parameters = ModelParameters(file="broken.gguf", context_tokens=512, threads=1)
    with pytest.raises(
        EngineError, match=r"loading broken.gguf failed: .*Failed to init"
    ) as caught:
        await LlamaChild.start(parameters)
    assert caught.value.category is EngineErrorCategory.INTERNAL
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no memory >&2; exit 3", r"ended with status 3 \(no memory\) instead of loading"),
        ("kill -9 $$", "ended with signal 9 instead of loading"),
        ("echo hello; exec cat", "instead of loading"),
        ("head -c 9000 /dev/zero; exec cat", "instead of loading"),
    ],
)
async def test_process_that_does_not_answer(
    script: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_child, "KILL_SECONDS", 0.2)
    with trio.fail_after(PATIENCE), pytest.raises(EngineError, match=reason) as caught:
        await LlamaChild.start(PARAMETERS, command=shell(script))
    assert caught.value.category is EngineErrorCategory.INTERNAL


async def test_it_is_told_by_the_name_of_its_engine(
    log_lines: Sequence[dict[str, Any]],
) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(EngineError) as caught:
        await LlamaChild.start(
            PARAMETERS, engine="small", command=shell("echo no memory >&2; exit 3")
        )
    assert caught.value.engine == "small"
    assert {line["engine"] for line in log_lines} == {"small"}


async def test_command_that_cannot_be_run() -> None:
    with pytest.raises(EngineError, match=r"cannot start a process: .*nowhere"):
        await LlamaChild.start(PARAMETERS, command=["/nowhere"])


async def test_parameters_that_are_not_read() -> None:
    parameters = ModelParameters(file="x" * 1_000_000, context_tokens=512, threads=1)
    with pytest.raises(EngineError, match="instead of loading"):
        await LlamaChild.start(parameters, command=["/bin/false"])


async def test_load_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_child, "LOAD_SECONDS", 0.05)
    with trio.fail_after(PATIENCE), pytest.raises(EngineError, match="not loaded within") as caught:
        await LlamaChild.start(PARAMETERS, command=shell("exec sleep 60"))
    assert caught.value.category is EngineErrorCategory.TIMEOUT
    assert caught.value.retryable


async def test_cancelled_load_leaves_no_process(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    script = f"echo $$ > {started}; exec sleep 60"
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            await LlamaChild.start(PARAMETERS, command=shell(script))

        nursery.start_soon(start)
        pid = int(await trio.Path(started).read_text())
        nursery.cancel_scope.cancel()
    assert has_ended(pid)


async def test_asking_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    child = await LlamaChild.start(PARAMETERS, command=shell(SERVE + "exec cat"))
    monkeypatch.setattr(child, "_server", None)
    with pytest.raises(EngineError, match="asked before it was loaded"):
        await events(child)
    await child.aclose()


async def test_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_child, "CLOSE_SECONDS", 0.05)
    child = await LlamaChild.start(PARAMETERS, command=shell(SERVE + "exec sleep 60"))
    with trio.fail_after(PATIENCE):
        await child.aclose()
        await child.aclose()
    assert child._process.returncode == -signal.SIGKILL


async def test_words_of_the_process_are_logged_in_bounds(log_lines: list[dict[str, Any]]) -> None:
    flood = "yes | head -n 100000 | tr -d '\\n' >&2; echo >&2"
    script = f"{SERVE} echo key=secretkey >&2; {flood}; exec cat"
    child = await LlamaChild.start(PARAMETERS, command=shell(script))
    await child.aclose()
    assert not [line for line in log_lines if line["level"] != "DEBUG"]
    words = [line["line"] for line in log_lines if line["message"].endswith("process said")]
    assert words[0] == "key=***"
    assert set(words[1:]) == {"y" * 300}


async def test_death_is_logged(log_lines: list[dict[str, Any]]) -> None:
    script = f"{SERVE} echo 'GGML_ASSERT(x) failed' >&2; kill -6 $$"
    child = await LlamaChild.start(PARAMETERS, command=shell(script))
    with trio.fail_after(PATIENCE):
        await child._ended.wait()
    assert not child.running
    await child.aclose()
    errors = [line for line in log_lines if line["level"] == "ERROR"]
    assert [line["message"] for line in errors] == ["language model's process ended"]
    assert errors[0]["status"] == -signal.SIGABRT
    assert errors[0]["said"] == ["GGML_ASSERT(x) failed"]


async def test_silent_process_is_ended(socket_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_child, "SILENT_SECONDS", 0.05)
    url = await socket_server.listen()

    async def silent(exchange: Any) -> None:
        await exchange.begin(content_type="text/event-stream")
        await exchange.wait_for_disconnect()

    socket_server.handler = silent
    child = await LlamaChild.start(PARAMETERS, command=shell(SERVE + "exec cat", url))
    with trio.fail_after(PATIENCE), pytest.raises(EngineError, match="gave nothing for") as caught:
        await events(child)
    assert caught.value.category is EngineErrorCategory.TIMEOUT
    assert caught.value.retryable
    assert not child.running


async def test_refusal_without_words_is_the_error_it_is(socket_server: Any) -> None:
    url = await socket_server.listen()

    async def refuse(exchange: Any) -> None:
        await exchange.answer(b"go away", 403)

    socket_server.handler = refuse
    child = await LlamaChild.start(PARAMETERS, command=shell(SERVE + "exec cat", url))
    with pytest.raises(EngineError, match="answered 403 Forbidden"):
        await events(child)
    assert child.running
    await child.aclose()


async def test_proxies_of_the_environment_are_not_used(
    socket_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = await socket_server.listen()

    async def serve(exchange: Any) -> None:
        assert exchange.headers["authorization"] == "Bearer secretkey"
        await exchange.answer(b'data: {"a": 1}\n\n', content_type="text/event-stream")

    socket_server.handler = serve
    child = await LlamaChild.start(PARAMETERS, command=shell(SERVE + "exec cat", url))
    assert await events(child) == [{"a": 1}]
    # Connections are not kept: the process has one thread for them.
    assert await events(child) == [{"a": 1}]
    assert len({id(exchange._stream) for exchange in socket_server.exchanges}) == 2
    await child.aclose()


async def events(child: LlamaChild) -> list[dict[str, Any]]:
    return [event async for event in child.ask({"messages": []})]
