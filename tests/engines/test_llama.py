from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import LlamaSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm.llama import LlamaLanguageModel, without_oldest
from xiaozhi_trio.engines.protocols import ChatMessage, LanguageModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
    from pathlib import Path

pytestmark = pytest.mark.sockets

PATIENCE = 5
CONTEXT = 1000
REPLY = 100
HANG_UP = None


def progress(total: int) -> dict[str, Any]:
    return {**delta(None), "prompt_progress": {"total": total, "processed": 0}}


def delta(content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}, "finish_reason": finish_reason}]}


def length(request: dict[str, Any]) -> int:
    return sum(len(message["content"]) for message in request["messages"])


def answer(text: str) -> Callable[[dict[str, Any]], AsyncGenerator[Any]]:
    """A reply of one token per character, to a prompt of one token per character."""

    async def reply(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        yield progress(length(request))
        for character in text:
            yield delta(character)
        yield delta(None, "stop")

    return reply


class FakeLlama:
    """Stands for the server inside of the process: replies as the test scripted."""

    def __init__(self, server: Any) -> None:
        server.handler = self._serve
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.reply: Callable[[dict[str, Any]], AsyncGenerator[Any]] = answer("ok")
        self.left = trio.Event()

    def command(self) -> Sequence[str]:
        """A process that tells the address of this server and waits for its end."""
        script = 'read -r parameters; printf "%s\\n" "$0"; exec cat'
        return ["/bin/sh", "-c", script, orjson.dumps({"url": self.url}).decode()]

    async def _serve(self, exchange: Any) -> None:
        self.requests.append(exchange.json)
        self.keys.add(exchange.headers["authorization"])
        async with contextlib.aclosing(self.reply(exchange.json)) as events:
            try:
                await self._answer(exchange, events)
            except trio.BrokenResourceError:
                self.left.set()
                raise

    async def _answer(self, exchange: Any, events: AsyncGenerator[Any]) -> None:
        first = await anext(events)
        if "error" in first and "code" in first["error"]:
            await exchange.answer(orjson.dumps(first), first["error"]["code"])
            return
        await exchange.begin(content_type="text/event-stream")
        await exchange.send(b"data: " + orjson.dumps(first) + b"\n\n")
        async for event in events:
            if event is HANG_UP:
                return
            await exchange.send(b"data: " + orjson.dumps(event) + b"\n\n")
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()


class Models:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def ensure(self, name: str) -> Path:
        await trio.lowlevel.checkpoint()
        folder = self._folder / name
        folder.mkdir()
        (folder / "model.gguf").touch()
        return folder


@pytest.fixture
async def llama(socket_server: Any) -> FakeLlama:
    llama = FakeLlama(socket_server)
    llama.url = await socket_server.listen()
    return llama


@pytest.fixture
async def model(tmp_path: Path, llama: FakeLlama) -> AsyncIterator[LlamaLanguageModel]:
    settings = LlamaSettings(
        context_tokens=CONTEXT, max_tokens=REPLY, temperature=0.25, threads=3, queue=1
    )
    model = LlamaLanguageModel(settings, Models(tmp_path), command=llama.command())
    assert isinstance(model, LanguageModel)
    await model.load()
    yield model
    await model.aclose()


def said(content: str = "hi") -> list[ChatMessage]:
    return [ChatMessage("user", content)]


async def whole(model: LlamaLanguageModel, messages: list[ChatMessage]) -> str:
    with trio.fail_after(PATIENCE):
        async with model.reply(messages) as pieces:
            return "".join([piece async for piece in pieces])


async def test_reply_is_streamed(model: LlamaLanguageModel, llama: FakeLlama) -> None:
    llama.reply = answer("你好😀")
    messages = [ChatMessage("system", "Be kind."), *said()]
    async with model.reply(messages) as pieces:
        assert [piece async for piece in pieces] == ["你", "好", "😀"]
    request = llama.requests[-1]
    assert request["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
    ]
    assert request["max_tokens"] == REPLY
    assert request["temperature"] == 0.25
    assert request["return_progress"] is True
    assert len(llama.keys.pop()) > len("Bearer ") + 30


async def test_longest_reply_fits_without_a_reader(
    model: LlamaLanguageModel, llama: FakeLlama
) -> None:
    ended = trio.Event()

    async def reply(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        async for event in answer("x" * REPLY)(request):
            yield event
        ended.set()

    llama.reply = reply
    async with model.reply(said()) as pieces:
        assert await anext(pieces) == "x"
        with trio.fail_after(PATIENCE):
            await ended.wait()
            # The next reply has its turn while nobody reads this one.
            assert await whole(model, said()) == "x" * REPLY
        assert len([piece async for piece in pieces]) == REPLY - 1


async def test_leaving_the_block_ends_the_generation(
    model: LlamaLanguageModel, llama: FakeLlama
) -> None:
    async def endless(_: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield delta("a")
            await trio.sleep(0.001)

    llama.reply = endless
    async with model.reply(said()) as pieces:
        assert await anext(pieces) == "a"
    with trio.fail_after(PATIENCE):
        await llama.left.wait()
    llama.reply = answer("next")
    assert await whole(model, said()) == "next"


async def test_cancellation_while_the_prompt_is_read(
    model: LlamaLanguageModel, llama: FakeLlama
) -> None:
    reading = trio.Event()

    async def slow_prompt(_: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield progress(50)
            reading.set()
            await trio.sleep(0.001)

    llama.reply = slow_prompt
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole, model, said())
        with trio.fail_after(PATIENCE):
            await reading.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE):
        await llama.left.wait()
    assert model.statistics().busy == 0


async def test_too_long_a_dialogue_loses_its_oldest_messages(
    model: LlamaLanguageModel, llama: FakeLlama
) -> None:
    exchange = [ChatMessage("user", "q" * 100), ChatMessage("assistant", "a" * 100)]
    dialogue = [ChatMessage("system", "s" * 100), *exchange * 5, *said("l" * 50)]
    assert await whole(model, dialogue) == "ok"
    assert len(llama.requests) == 2
    kept = llama.requests[-1]["messages"]
    assert kept[0]["role"] == "system"
    assert kept[1]["role"] == "user"
    assert kept[-1]["content"] == "l" * 50
    assert len(kept) == 8


@pytest.mark.parametrize("refusal", [{"code": 400}, {}], ids=["refused", "in the stream"])
async def test_dialogue_beyond_the_whole_context(
    model: LlamaLanguageModel, llama: FakeLlama, refusal: dict[str, Any]
) -> None:
    async def refuse_long(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        total = length(request)
        if total > CONTEXT:
            error = {"type": "exceed_context_size_error", "n_prompt_tokens": total}
            yield {"error": {**error, "message": "x", **refusal}}
            return
        async for event in answer("ok")(request):
            yield event

    llama.reply = refuse_long
    dialogue = [*said("q" * 600), ChatMessage("assistant", "a" * 600), *said("l")]
    assert await whole(model, dialogue) == "ok"
    with pytest.raises(EngineError, match="the prompt is 2000 tokens long, of at most 900"):
        await whole(model, said("q" * 2000))


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([{"error": {"code": 400, "message": "no role"}}], "generation ended early: no role"),
        ([delta("a"), {"error": {"message": "no slot"}}], "generation ended early: no slot"),
        ([delta("a")], "generation ended early: no reason given"),
        ([{"choices": [{}]}], "reading the reply failed: KeyError"),
        ([[]], "the process sent no JSON object"),
        ([{"x": "y" * 300_000}], "an event is longer than"),
    ],
)
async def test_failures_of_the_server(
    model: LlamaLanguageModel, llama: FakeLlama, events: list[Any], reason: str
) -> None:
    async def reply(_: dict[str, Any]) -> AsyncGenerator[Any]:
        for event in events:
            yield event

    llama.reply = reply
    with pytest.raises(EngineError, match=reason):
        await whole(model, said())
    llama.reply = answer("next")
    assert await whole(model, said()) == "next"


async def test_full_queue_is_busy(model: LlamaLanguageModel, llama: FakeLlama) -> None:
    may_go_on = trio.Event()

    async def waiting(_: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        yield progress(1)
        await may_go_on.wait()
        yield delta(None, "stop")

    llama.reply = waiting
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole, model, said())
        nursery.start_soon(whole, model, said())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert model.statistics().waiting == 1
        with pytest.raises(EngineError) as caught:
            await whole(model, said())
        may_go_on.set()
    assert caught.value.category is EngineErrorCategory.BUSY


async def test_reply_fails_with_its_process_and_the_next_starts_another(
    model: LlamaLanguageModel, llama: FakeLlama, log_lines: list[dict[str, Any]]
) -> None:
    assert model._child is not None
    first = model._child.pid

    async def dying(_: dict[str, Any]) -> AsyncGenerator[Any]:
        yield delta("a")
        os.kill(first, signal.SIGKILL)
        yield HANG_UP

    llama.reply = dying
    with pytest.raises(EngineError, match="ended with signal 9; the next reply") as caught:
        await whole(model, said())
    assert caught.value.category is EngineErrorCategory.CONNECTIVITY
    assert caught.value.retryable
    llama.reply = answer("ok")
    assert await whole(model, said()) == "ok"
    assert model._child.pid != first
    assert [
        (line["message"], line.get("status")) for line in log_lines if line["level"] != "DEBUG"
    ] == [("language model's process ended", -9), ("language model started again", None)]


async def test_process_that_cannot_start_again(model: LlamaLanguageModel, llama: FakeLlama) -> None:
    assert model._child is not None
    await model._child.kill()
    model._command = ["/bin/false"]
    for _ in range(2):
        with pytest.raises(EngineError, match="ended with status 1 instead of loading"):
            await whole(model, said())
    model._command = llama.command()
    assert await whole(model, said()) == "ok"


async def test_load_failures(tmp_path: Path) -> None:
    model = LlamaLanguageModel(
        LlamaSettings(context_tokens=512, max_tokens=512), Models(tmp_path), command=["/bin/false"]
    )
    with pytest.raises(EngineError, match=r"`max_tokens` \(512\) must be smaller"):
        await model.load()
    with pytest.raises(EngineError, match="is not loaded"):
        model.reply(said())
    await model.aclose()


async def test_closing_ends_the_reply_under_way(
    model: LlamaLanguageModel, llama: FakeLlama
) -> None:
    async def endless(_: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield delta("a")
            await trio.sleep(0.001)

    llama.reply = endless
    assert model._child is not None
    process = model._child._process
    async with model.reply(said()) as pieces:
        assert await anext(pieces) == "a"
        await model.aclose()
        with pytest.raises(EngineError, match="is shut down"):
            async for _ in pieces:
                pass
    assert process.returncode is not None
    with pytest.raises(EngineError, match="is not loaded"):
        model.reply(said())


def test_without_oldest_keeps_system_and_last() -> None:
    dialogue = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a2"},
        {"role": "user", "content": "q3"},
    ]
    assert without_oldest(dialogue, 0.01) == [dialogue[0], *dialogue[3:]]
    assert without_oldest(dialogue, 0.9) == [dialogue[0], dialogue[5]]
    assert without_oldest(dialogue[:1], 0.9) == dialogue[:1]
    assert without_oldest(dialogue[:2], 0.9) == dialogue[:2]
