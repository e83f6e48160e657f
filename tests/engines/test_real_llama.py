from __future__ import annotations

import signal

import pytest
import trio

from xiaozhi_trio.config.engines import LlamaSettings
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.llm.llama import LlamaLanguageModel
from xiaozhi_trio.engines.model_store import ModelStore, default_model_directory
from xiaozhi_trio.engines.protocols import ChatMessage

pytestmark = pytest.mark.models

PERSONA = ChatMessage("system", "You are a voice assistant. Answer in one short sentence.")
COUNT = ChatMessage("user", "Count from one to two hundred in words.")


async def whole(model: LlamaLanguageModel, *messages: ChatMessage) -> str:
    async with model.reply(messages) as pieces:
        return "".join([piece async for piece in pieces])


async def test_reply_interruption_and_bounds(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    settings = LlamaSettings(context_tokens=512, max_tokens=96, temperature=0)
    model = LlamaLanguageModel(settings, ModelStore(default_model_directory()))
    await model.load()

    assert "Paris" in await whole(
        model, PERSONA, ChatMessage("user", "What is the capital of France?")
    )

    async with model.reply([PERSONA, COUNT]) as pieces:
        async for _ in pieces:
            break
        left = trio.current_time()
    # The whole reply would take at least twice as long.
    assert trio.current_time() - left < 1.2
    with trio.fail_after(30):
        assert await whole(model, PERSONA, ChatMessage("user", "Say yes."))

    with trio.move_on_after(0.1) as scope:
        await whole(model, PERSONA, ChatMessage("user", "word " * 300))
    assert scope.cancelled_caught

    async with model.reply([PERSONA, COUNT]) as pieces:
        assert 1 < len([piece async for piece in pieces]) <= settings.max_tokens

    long = [ChatMessage("user", "word " * 120), ChatMessage("assistant", "ok")] * 4
    assert await whole(model, PERSONA, *long, ChatMessage("user", "Say yes."))
    with pytest.raises(EngineError) as caught:
        await whole(model, PERSONA, ChatMessage("user", "word " * 500))
    assert caught.value.category is EngineErrorCategory.BAD_REQUEST

    await model.aclose()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    out, _ = capfd.readouterr()
    assert out == ""
