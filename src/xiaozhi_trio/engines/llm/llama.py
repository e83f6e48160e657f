"""A GGUF language model on the CPU, through llama.cpp (xllamacpp).

xllamacpp runs llama.cpp's server inside this process. It also opens that
server's port on the loopback address and cannot be told not to; here the port
answers nobody, for it asks for a random key. Its progress reports serve two ends:
the first tells the length of the prompt before any work is done on it, and each
is a chance to stop while a long prompt is read.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import attrs
from loguru import logger

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import (
    library_errors,
    only_file,
    optional_packages,
    threads_or_cores,
)
from xiaozhi_trio.engines.worker import ModelWorkers, Stop, WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from xiaozhi_trio.config.engines import LlamaSettings
    from xiaozhi_trio.engines.model_folder import ModelFolder
    from xiaozhi_trio.engines.protocols import ChatMessage

PROMPT_BATCH = 32
"""Tokens read between two chances to stop, a quarter second about on two cores.

Larger batches are read up to a quarter faster, but hold the model as much longer
after an interruption.
"""
REUSED_PIECE = 64
"""Least tokens of an earlier prompt that are worth moving to another place in a new one."""
CACHED_DIALOGUES_MIB = 512
"""Memory for the states of dialogues that are not under way, MiB."""

_AGAINST_LOOPS = {"repeat_penalty": 1.1, "repeat_last_n": 128, "dry_multiplier": 0.8}
"""Small models fall into saying one thing for ever; llama.cpp's DRY sampler breaks such loops."""

_QUIET = -1
_WARM_UP = ("你好", "Hello")


class LlamaLanguageModel:
    """A `LanguageModel`; one reply at a time, the others wait."""

    name = "llama"

    def __init__(self, settings: LlamaSettings, models: ModelFolder) -> None:
        self._settings = settings
        self._models = models
        self._server: Any = None
        self._workers = ModelWorkers(self.name, workers=1, queue=settings.queue)

    def statistics(self) -> WorkerStatistics:
        """How busy the model is."""
        return self._workers.statistics()

    async def load(self) -> None:
        """Load the model and answer a word in each language.

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
        self._server = await self._workers.run(
            lambda stop: self._load_and_warm_up(folder, stop), abandon=True
        )

    def reply(
        self, messages: Sequence[ChatMessage]
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Stream the reply; the oldest messages go where the dialogue is too long.

        Raises `EngineError`: BUSY when the queue is full, BAD_REQUEST when even the
        system prompt and the last message alone are too long.
        """
        server = self._server
        if server is None:
            raise EngineError(
                "is not loaded", engine=self.name, category=EngineErrorCategory.UNAVAILABLE
            )
        dialogue = [attrs.asdict(message) for message in messages]

        def generate(stop: Stop, emit: Callable[[str], None]) -> None:
            self._generate(server, dialogue, stop, emit)

        # Each token gives one piece at most, and the last report one more.
        return self._workers.stream(generate, room=self._settings.max_tokens + 1)

    async def aclose(self) -> None:
        """End the reply under way and unload the model."""
        await self._workers.aclose()
        self._server = None

    @property
    def _prompt_tokens(self) -> int:
        return self._settings.context_tokens - self._settings.max_tokens

    def _load_and_warm_up(self, folder: Path, stop: Stop) -> Any:
        with optional_packages(self.name):
            import xllamacpp

        settings = self._settings
        threads = threads_or_cores(settings.threads)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(only_file(folder, "*.gguf", self.name))
        parameters.n_ctx = settings.context_tokens
        parameters.n_parallel = 1
        parameters.n_batch = parameters.n_ubatch = PROMPT_BATCH
        parameters.n_cache_reuse = REUSED_PIECE
        parameters.cache_ram_mib = CACHED_DIALOGUES_MIB
        # llama.cpp's threads wait for each other by spinning, so one that finds no core
        # free stalls all of them. Prompts gain from every core; generation is bound by
        # memory, and leaves one to speech, codecs and the event loop.
        parameters.cpuparams.n_threads = max(1, threads - 1)
        parameters.cpuparams_batch.n_threads = threads
        # Fitting to the memory of a graphics card reads the whole file once more, and
        # both this and the warm-up happen while the constructor blocks all of Python.
        parameters.fit_params = False
        parameters.warmup = False
        parameters.verbosity = _QUIET
        parameters.api_keys = [secrets.token_urlsafe(32)]
        parameters.ui = False
        parameters.endpoint_slots = False
        parameters.n_threads_http = 1
        with library_errors(self.name, f"loading {parameters.model.path}"):
            server = xllamacpp.Server(parameters)
            for text in _WARM_UP:
                attempt = _Attempt(stop, lambda _: None, prompt_tokens=self._prompt_tokens)
                request = {**_request([{"role": "user", "content": text}]), "max_tokens": 1}
                server.handle_chat_completions(request, attempt.on_event)
        return server

    def _generate(
        self,
        server: Any,
        dialogue: list[dict[str, Any]],
        stop: Stop,
        emit: Callable[[str], None],
    ) -> None:
        while not stop.is_set:
            attempt = _Attempt(stop, emit, prompt_tokens=self._prompt_tokens)
            request = {
                **_request(dialogue),
                "max_tokens": self._settings.max_tokens,
                "temperature": self._settings.temperature,
                **_AGAINST_LOOPS,
            }
            with library_errors(self.name, "generation"):
                server.handle_chat_completions(request, attempt.on_event)
            if attempt.finished or stop.is_set:
                return
            if attempt.too_long is None:
                raise EngineError(
                    f"generation ended early: {attempt.error or 'no reason given'}",
                    engine=self.name,
                    category=EngineErrorCategory.BAD_RESPONSE,
                )
            dialogue = self._shortened(dialogue, attempt.too_long)

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
    """One try at a reply: takes the server's reports, in the model's thread."""

    def __init__(self, stop: Stop, emit: Callable[[str], None], *, prompt_tokens: int) -> None:
        self._stop = stop
        self._emit = emit
        self._prompt_tokens = prompt_tokens
        self.finished = False
        self.too_long: int | None = None
        """Length of the prompt in tokens where that was the reason to end."""
        self.error: str | None = None

    def on_event(self, event: dict[str, Any]) -> bool:
        """Take one report; True makes the server end the reply."""
        if self._stop.is_set:
            return True
        if "error" in event:
            self._take_error(event["error"])
            return True
        progress = event.get("prompt_progress")
        if progress is not None and progress["total"] > self._prompt_tokens:
            self.too_long = progress["total"]
            return True
        for choice in event["choices"]:
            piece = choice["delta"].get("content")
            if piece:
                self._emit(piece)
            if choice["finish_reason"] is not None:
                self.finished = True
        return False

    def _take_error(self, error: dict[str, Any]) -> None:
        if error.get("type") == "exceed_context_size_error":
            self.too_long = error["n_prompt_tokens"]
        else:
            self.error = str(error.get("message"))


def _request(messages: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "messages": messages,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
    }


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
