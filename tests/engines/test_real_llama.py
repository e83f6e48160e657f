from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from xiaozhi_trio.config.engines import LlamaSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm.llama import LlamaLanguageModel
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import ChatMessage

pytestmark = pytest.mark.models

PERSONA = ChatMessage("system", "You are a voice assistant. Answer in one short sentence.")
STORY = ChatMessage("user", "Tell a long story of a fox.")
CPU_TIME_IS_TOLD = Path("/proc/self/stat").exists()
LONGEST_STAND = 0.25
"""Seconds; a quiet machine needs a tenth of it."""


async def whole(model: LlamaLanguageModel, *messages: ChatMessage) -> str:
    async with model.reply(messages) as pieces:
        return "".join([piece async for piece in pieces])


async def kill_while_it_replies(model: LlamaLanguageModel, pid: int) -> None:
    async with model.reply([STORY]) as pieces:
        async for _ in pieces:
            os.kill(pid, signal.SIGKILL)


async def stand_of_the_loop(seconds: list[float]) -> None:
    while True:
        began = trio.current_time()
        await trio.sleep(0.01)
        seconds.append(trio.current_time() - began - 0.01)


def busy_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def end_of_work(pid: int) -> float:
    """When the process began to rest."""
    last, busy = trio.current_time(), busy_seconds(pid)
    while trio.current_time() - last < 0.3:
        await trio.sleep(0.02)
        if busy_seconds(pid) > busy:
            last, busy = trio.current_time(), busy_seconds(pid)
    return last


async def test_reply_interruption_and_bounds(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    settings = LlamaSettings(context_tokens=512, max_tokens=96, temperature=0)
    model = LlamaLanguageModel(settings, ModelStore(default_model_directory()))
    async with trio.open_nursery() as nursery:
        stands: list[float] = []
        nursery.start_soon(stand_of_the_loop, stands)
        await model.load()
        nursery.cancel_scope.cancel()
    assert max(stands) < LONGEST_STAND

    assert "Paris" in await whole(
        model, PERSONA, ChatMessage("user", "What is the capital of France?")
    )

    assert model._child is not None
    pid = model._child.pid
    async with model.reply([STORY]) as pieces:
        async for _ in pieces:
            break
    if CPU_TIME_IS_TOLD:
        left = trio.current_time()
        # The whole reply would take at least twice as long.
        assert await end_of_work(pid) - left < 1.2
    with trio.fail_after(30):
        assert await whole(model, PERSONA, ChatMessage("user", "Say yes."))

    with trio.move_on_after(0.1) as scope:
        await whole(model, PERSONA, ChatMessage("user", "word " * 300))
    assert scope.cancelled_caught

    long = [ChatMessage("user", "word " * 120), ChatMessage("assistant", "ok")] * 4
    assert await whole(model, PERSONA, *long, ChatMessage("user", "Say yes."))
    with pytest.raises(EngineError) as caught:
        await whole(model, PERSONA, ChatMessage("user", "word " * 500))
    assert caught.value.category is EngineErrorCategory.BAD_REQUEST

    with pytest.raises(EngineError, match="ended with signal 9") as caught:
        await kill_while_it_replies(model, pid)
    assert caught.value.retryable
    assert await whole(model, PERSONA, ChatMessage("user", "Say yes."))
    assert model._child.pid != pid

    async with model.reply([PERSONA, ChatMessage("user", "word " * 300)]):
        with trio.fail_after(2):
            await model.aclose()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    out, _ = capfd.readouterr()
    assert out == ""
