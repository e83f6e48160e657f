from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from xiaozhi_trio.config.engines import LlamaSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm.llama import LlamaLanguageModel, without_oldest
from xiaozhi_trio.engines.protocols import ChatMessage, LanguageModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 5
CONTEXT = 1000
REPLY = 100


def progress(total: int) -> dict[str, Any]:
    return {**delta(None), "prompt_progress": {"total": total, "processed": 0}}


def delta(content: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}, "finish_reason": finish_reason}]}


class FakeServer:
    """Stands for `xllamacpp.Server`: replies as the test scripted, one token per character."""

    instance: FakeServer

    def __init__(self, parameters: Any) -> None:
        if "broken" in parameters.model.path:
            raise RuntimeError("Failed to init server")
        FakeServer.instance = self
        self.parameters = parameters
        self.requests: list[dict[str, Any]] = []
        self.stopped_after: list[int] = []
        self.reply: Callable[[dict[str, Any]], Iterator[dict[str, Any]]] = answer("ok")

    def handle_chat_completions(
        self, request: dict[str, Any], callback: Callable[[dict[str, Any]], bool]
    ) -> None:
        self.requests.append(request)
        for count, event in enumerate(self.reply(request)):
            if callback(event):
                self.stopped_after.append(count)
                return


def answer(text: str) -> Callable[[dict[str, Any]], Iterator[dict[str, Any]]]:
    def reply(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield progress(sum(len(message["content"]) for message in request["messages"]))
        for character in text:
            yield delta(character)
        yield delta(None, "stop")

    return reply


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("xllamacpp")
    package.Server = FakeServer  # type: ignore[attr-defined]
    package.CommonParams = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        model=SimpleNamespace(),
        cpuparams=SimpleNamespace(),
        cpuparams_batch=SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "xllamacpp", package)


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
async def model(tmp_path: Path) -> LlamaLanguageModel:
    settings = LlamaSettings(context_tokens=CONTEXT, max_tokens=REPLY, temperature=0.25, threads=3)
    model = LlamaLanguageModel(settings, Models(tmp_path))
    await model.load()
    FakeServer.instance.requests.clear()
    return model


def said(content: str = "hi") -> list[ChatMessage]:
    return [ChatMessage("user", content)]


async def whole(model: LlamaLanguageModel, messages: list[ChatMessage]) -> str:
    async with model.reply(messages) as pieces:
        return "".join([piece async for piece in pieces])


async def test_load_sets_the_server_up_and_warms_up(tmp_path: Path) -> None:
    settings = LlamaSettings(context_tokens=CONTEXT, threads=3)
    model = LlamaLanguageModel(settings, Models(tmp_path))
    assert isinstance(model, LanguageModel)
    await model.load()
    server = FakeServer.instance
    assert server.parameters.n_ctx == CONTEXT
    assert server.parameters.cpuparams.n_threads == 2
    assert server.parameters.cpuparams_batch.n_threads == 3
    assert len(server.parameters.api_keys[0]) > 30
    assert [request["max_tokens"] for request in server.requests] == [1, 1]


async def test_reply_is_streamed(model: LlamaLanguageModel) -> None:
    FakeServer.instance.reply = answer("你好😀")
    messages = [ChatMessage("system", "Be kind."), *said()]
    async with model.reply(messages) as pieces:
        assert [piece async for piece in pieces] == ["你", "好", "😀"]
    request = FakeServer.instance.requests[-1]
    assert request["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
    ]
    assert request["max_tokens"] == REPLY
    assert request["temperature"] == 0.25


async def test_longest_reply_fits_without_a_reader(model: LlamaLanguageModel) -> None:
    ended = threading.Event()

    def reply(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from answer("x" * REPLY)(request)
        ended.set()

    FakeServer.instance.reply = reply
    async with model.reply(said()) as pieces:
        assert await anext(pieces) == "x"
        assert await trio.to_thread.run_sync(ended.wait, PATIENCE)
        assert len([piece async for piece in pieces]) == REPLY - 1


async def test_leaving_the_block_ends_the_generation(model: LlamaLanguageModel) -> None:
    may_go_on = threading.Event()

    def endless(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield delta("a")
        assert may_go_on.wait(PATIENCE)
        while True:
            yield delta("b")

    FakeServer.instance.reply = endless
    async with trio.open_nursery() as nursery, model.reply(said()) as pieces:
        assert await anext(pieces) == "a"
        nursery.start_soon(_when_blocked, may_go_on.set)
    assert FakeServer.instance.stopped_after == [1]
    FakeServer.instance.reply = answer("next")
    assert await whole(model, said()) == "next"


async def test_cancellation_while_the_prompt_is_read(model: LlamaLanguageModel) -> None:
    reading = threading.Event()
    may_go_on = threading.Event()

    def slow_prompt(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for _step in range(100):
            yield progress(50)
            reading.set()
            assert may_go_on.wait(PATIENCE)

    FakeServer.instance.reply = slow_prompt
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole, model, said())
        assert await trio.to_thread.run_sync(reading.wait, PATIENCE)
        nursery.cancel_scope.cancel()
        nursery.start_soon(_when_blocked, may_go_on.set)
    assert FakeServer.instance.stopped_after == [1]


async def test_too_long_a_dialogue_loses_its_oldest_messages(model: LlamaLanguageModel) -> None:
    exchange = [ChatMessage("user", "q" * 100), ChatMessage("assistant", "a" * 100)]
    dialogue = [ChatMessage("system", "s" * 100), *exchange * 5, *said("l" * 50)]
    assert await whole(model, dialogue) == "ok"
    requests = FakeServer.instance.requests
    assert len(requests) == 2
    kept = requests[-1]["messages"]
    assert kept[0]["role"] == "system"
    assert kept[1]["role"] == "user"
    assert kept[-1]["content"] == "l" * 50
    assert len(kept) == 8
    # Nothing was generated for the prompt that was too long.
    assert FakeServer.instance.stopped_after == [0]


async def test_dialogue_beyond_the_whole_context(model: LlamaLanguageModel) -> None:
    def refuse_long(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        total = sum(len(message["content"]) for message in request["messages"])
        if total > CONTEXT:
            error = {"type": "exceed_context_size_error", "n_prompt_tokens": total, "message": "x"}
            yield {"error": error}
        else:
            yield from answer("ok")(request)

    FakeServer.instance.reply = refuse_long
    dialogue = [*said("q" * 600), ChatMessage("assistant", "a" * 600), *said("l")]
    assert await whole(model, dialogue) == "ok"
    with pytest.raises(EngineError, match="the prompt is 2000 tokens long, of at most 900"):
        await whole(model, said("q" * 2000))


async def test_failures_of_the_server(model: LlamaLanguageModel) -> None:
    def broken(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"error": {"type": "server_error", "message": "out of slots"}}

    FakeServer.instance.reply = broken
    with pytest.raises(EngineError, match="generation ended early: out of slots") as caught:
        await whole(model, said())
    assert caught.value.category is EngineErrorCategory.BAD_RESPONSE
    FakeServer.instance.reply = lambda _: iter([delta("a")])
    with pytest.raises(EngineError, match="generation ended early: no reason given"):
        await whole(model, said())

    def raising(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        raise ValueError("no role")
        yield

    FakeServer.instance.reply = raising
    with pytest.raises(EngineError, match="generation failed: ValueError: no role"):
        await whole(model, said())


async def test_load_failures(tmp_path: Path) -> None:
    model = LlamaLanguageModel(LlamaSettings(model="broken"), Models(tmp_path))
    with pytest.raises(EngineError, match="Failed to init server"):
        await model.load()
    with pytest.raises(EngineError, match="is not loaded"):
        model.reply(said())
    model = LlamaLanguageModel(LlamaSettings(context_tokens=512, max_tokens=512), Models(tmp_path))
    with pytest.raises(EngineError, match=r"`max_tokens` \(512\) must be smaller"):
        await model.load()


async def test_full_queue_is_busy(tmp_path: Path) -> None:
    model = LlamaLanguageModel(LlamaSettings(queue=1), Models(tmp_path))
    await model.load()
    may_go_on = threading.Event()

    def waiting(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        assert may_go_on.wait(PATIENCE)
        yield delta(None, "stop")

    FakeServer.instance.reply = waiting
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole, model, said())
        nursery.start_soon(whole, model, said())
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert model.statistics().waiting == 1
        with pytest.raises(EngineError) as caught:
            await whole(model, said())
        may_go_on.set()
    assert caught.value.category is EngineErrorCategory.BUSY


async def test_closed_model_refuses(model: LlamaLanguageModel) -> None:
    await model.aclose()
    with pytest.raises(EngineError):
        await whole(model, said())


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


async def _when_blocked(action: Callable[[], None]) -> None:
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked(0.01)
    action()
