"""A GGUF language model on the CPU: llama.cpp (xllamacpp) in a process of its own.

The process is started by `load`, and again by the first reply after it has died. Its
progress reports serve two ends: the first tells the length of the prompt before any
work is done on it, and each is a chance to stop while a long prompt is read.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from loguru import logger

from xiaozhi_trio.engines.ahead import run_ahead
from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import library_errors, only_file
from xiaozhi_trio.engines.llm.llama_child import COMMAND, LlamaChild
from xiaozhi_trio.engines.llm.llama_process import NAME, ModelParameters
from xiaozhi_trio.engines.llm.plain_dialogue import plain_dialogue
from xiaozhi_trio.engines.llm.reply_queue import ReplyQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from xiaozhi_trio.config.engines import LlamaSettings
    from xiaozhi_trio.engines.admission import WorkerStatistics
    from xiaozhi_trio.engines.model_folder import ModelFolder
    from xiaozhi_trio.engines.protocols import ChatMessage, ToolCall, ToolSpec

_AGAINST_LOOPS = {"repeat_penalty": 1.1, "repeat_last_n": 128, "dry_multiplier": 0.8}
"""Small models fall into saying one thing for ever; llama.cpp's DRY sampler breaks such loops."""


class LlamaLanguageModel:
    """A `LanguageModel`; one reply at a time, the others wait.

    It calls no tools. Offered three through llama.cpp's own template, Qwen2.5 0.5B (coder)
    called none of them in 16 tries: it wrote JSON to be spoken instead, also in 3 of 8
    answers that had no need of a tool; and the prompt grew by 290 tokens.
    """

    def __init__(
        self,
        settings: LlamaSettings,
        models: ModelFolder,
        *,
        name: str = NAME,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`command` runs `llama_process` or what stands for it."""
        self.name = name
        self._settings = settings
        self._models = models
        self._command = command
        self._file: Path | None = None
        self._child: LlamaChild | None = None
        self._queue = ReplyQueue(self.name, length=settings.queue)

    @property
    def is_busy(self) -> bool:
        """A call made now would wait for another caller."""
        return self._queue.is_busy

    def statistics(self) -> WorkerStatistics:
        """How busy the model is."""
        return self._queue.statistics()

    async def load(self) -> None:
        """Start the process; it loads the model and answers a word in each language.

        Raises `EngineError`, also where the reply leaves the dialogue no room.
        """
        if self._prompt_tokens < 1:
            raise EngineError(
                f"setting `max_tokens` ({self._settings.max_tokens}) must be smaller than "
                f"`context_tokens` ({self._settings.context_tokens}), which holds the dialogue too",
                engine=self.name,
                category=EngineErrorCategory.BAD_REQUEST,
            )
        folder = await self._models.ensure(self._settings.model)
        file = await trio.to_thread.run_sync(only_file, folder, "*.gguf", self.name)
        self._child = await self._start(file)
        self._file = file

    def reply(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),  # noqa: ARG002 - the protocol offers them to every model
    ) -> AbstractAsyncContextManager[AsyncIterator[str | ToolCall]]:
        """Stream the reply; the oldest messages go where the dialogue is too long.

        Raises `EngineError`: BUSY when the queue is full, BAD_REQUEST when even the
        system prompt and the last message alone are too long. Where the process dies,
        it is CONNECTIVITY and the next reply starts a new one.
        """
        file = self._file
        if file is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )
        dialogue = [
            {"role": message.role, "content": message.content}
            for message in plain_dialogue(messages)
        ]

        async def produce(pieces: trio.MemorySendChannel[str | ToolCall]) -> None:
            await self._queue.run(partial(self._generate, file, dialogue, pieces))

        # Each token gives one piece at most, and the last report one more: a slow
        # reader never holds the model.
        return run_ahead(produce, room=self._settings.max_tokens + 1)

    async def aclose(self) -> None:
        """End the reply under way and the process."""
        self._file = None
        try:
            await self._queue.aclose()
        finally:
            child, self._child = self._child, None
            if child is not None:
                await child.aclose()

    @property
    def _prompt_tokens(self) -> int:
        return self._settings.context_tokens - self._settings.max_tokens

    async def _start(self, file: Path) -> LlamaChild:
        parameters = ModelParameters(
            file=str(file),
            context_tokens=self._settings.context_tokens,
            threads=self._settings.threads,
        )
        return await LlamaChild.start(parameters, engine=self.name, command=self._command)

    async def _running(self, file: Path) -> LlamaChild:
        """The process, a new one where it has died; for the one whose turn it is."""
        if self._child is not None and not self._child.running:
            child, self._child = self._child, None
            await child.aclose()
        if self._child is None:
            began = trio.current_time()
            self._child = await self._start(file)
            logger.bind(engine=self.name, seconds=round(trio.current_time() - began, 3)).info(
                "language model started again"
            )
        return self._child

    async def _generate(
        self,
        file: Path,
        dialogue: list[dict[str, Any]],
        pieces: trio.MemorySendChannel[str | ToolCall],
    ) -> None:
        child = await self._running(file)
        while True:
            attempt = _Attempt(self._prompt_tokens)
            async with contextlib.aclosing(child.ask(self._request(dialogue))) as events:
                async for event in events:
                    with library_errors(self.name, "reading the reply"):
                        piece = attempt.take(event)
                    if piece:
                        await pieces.send(piece)
                    if attempt.over:
                        break
            if attempt.finished:
                return
            if attempt.too_long is None:
                raise EngineError(
                    f"generation ended early: {attempt.error or 'no reason given'}",
                    engine=self.name,
                    category=EngineErrorCategory.BAD_RESPONSE,
                )
            dialogue = self._shortened(dialogue, attempt.too_long)

    def _request(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "messages": messages,
            "stream": True,
            "return_progress": True,
            "cache_prompt": True,
            "max_tokens": self._settings.max_tokens,
            "temperature": self._settings.temperature,
            **_AGAINST_LOOPS,
        }

    def _shortened(self, dialogue: list[dict[str, Any]], tokens: int) -> list[dict[str, Any]]:
        """`dialogue`, which is `tokens` long, without its oldest messages."""
        shorter = without_oldest(dialogue, 1 - self._prompt_tokens / tokens)
        if len(shorter) == len(dialogue):
            raise EngineError(
                f"the prompt is {tokens} tokens long, of at most {self._prompt_tokens}; "
                "shorten the system prompt or raise setting `context_tokens`",
                engine=self.name,
                category=EngineErrorCategory.BAD_REQUEST,
            )
        logger.bind(engine=self.name, tokens=tokens, dropped=len(dialogue) - len(shorter)).debug(
            "dialogue shortened"
        )
        return shorter


class _Attempt:
    """One try at a reply: takes the events of its answer."""

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self.finished = False
        self.too_long: int | None = None
        """Length of the prompt in tokens where that was the reason to end."""
        self.error: str | None = None

    @property
    def over(self) -> bool:
        """True where nothing that may still come is of use."""
        return self.finished or self.too_long is not None or self.error is not None

    def take(self, event: dict[str, Any]) -> str:
        """The words that one event brings."""
        if "error" in event:
            self._take_error(event["error"])
            return ""
        progress = event.get("prompt_progress")
        if progress is not None and progress["total"] > self._prompt_tokens:
            self.too_long = progress["total"]
            return ""
        words = ""
        for choice in event["choices"]:
            words += choice["delta"].get("content") or ""
            if choice["finish_reason"] is not None:
                self.finished = True
        return words

    def _take_error(self, error: dict[str, Any]) -> None:
        if error.get("type") == "exceed_context_size_error":
            self.too_long = error["n_prompt_tokens"]
        else:
            self.error = str(error.get("message"))


def without_oldest(dialogue: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """Drop about `share` of the text, oldest exchange first, at least one message.

    What remains after the system prompts begins with what the user said. System
    prompts in front and the last message always stay.
    """
    opening = 0
    while opening < len(dialogue) - 1 and dialogue[opening]["role"] == "system":
        opening += 1
    excess = share * sum(len(message["content"]) for message in dialogue)
    kept = opening
    while kept < len(dialogue) - 1 and (
        kept == opening or excess > 0 or dialogue[kept]["role"] != "user"
    ):
        excess -= len(dialogue[kept]["content"])
        kept += 1
    return [*dialogue[:opening], *dialogue[kept:]]
