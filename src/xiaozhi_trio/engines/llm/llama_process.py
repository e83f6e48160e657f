"""The program of the process in which the embedded language model runs.

Its standard input brings one line, `ModelParameters` as JSON. Its standard output
gives one line, `{"url": …}` once the model answers at that address, or
`{"error": …, "category": …}` in the terms of `EngineError`. From then on it is spoken
to over HTTP. It ends with its standard input, and so with the server, however that ends.

It is a process of its own because the library's constructor holds Python's global lock
for seconds, and because what is wrong inside llama.cpp may end the process it happens in.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from functools import partial
from typing import IO, Any

import attrs

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import library_errors, optional_packages, threads_or_cores

NAME = "llama"
"""The engine's name in the configuration."""

PROMPT_BATCH = 32
"""Tokens read between two chances to stop, a quarter second about on two cores.

Larger batches are read up to a quarter faster, but hold the model as much longer
after an interruption.
"""
REUSED_PIECE = 64
"""Least tokens of an earlier prompt that are worth moving to another place in a new one."""
CACHED_DIALOGUES_MIB = 512
"""Memory for the states of dialogues that are not under way, MiB."""
LOOPBACK = "127.0.0.1"

_STDOUT, _STDERR = 1, 2
_ERRORS_ONLY = 1
_WARM_UP = ("你好", "Hello")


@attrs.frozen(kw_only=True)
class ModelParameters:
    """What the process is told."""

    file: str
    """Path of the GGUF file."""
    context_tokens: int
    threads: int
    """0 is one per core."""
    api_key: str = attrs.field(factory=partial(secrets.token_urlsafe, 32), repr=False)
    """Every local user can reach the port; who has not got this key is refused."""


def main() -> None:
    """Serve the model until the standard input ends."""
    # What a library prints must not be taken for the answer.
    with os.fdopen(os.dup(_STDOUT), "wb") as answers:
        os.dup2(_STDERR, _STDOUT)
        serve(sys.stdin.buffer, answers)


def serve(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Load the model that the first line of `orders` asks for, and answer.

    Returns where it cannot be loaded; else it ends the process, with `orders`.
    """
    parameters = ModelParameters(**json.loads(orders.readline()))
    try:
        server = open_server(parameters)
    except EngineError as error:
        _answer(answers, error=error.args[0], category=error.category.value)
        return
    _answer(answers, url=server.listening_address)
    orders.read()
    # Letting go of the server would read the prompt under way to its end, for seconds.
    os._exit(0)


def open_server(parameters: ModelParameters) -> Any:
    """The `xllamacpp.Server` of a model that has answered a word in each language.

    It listens on a free port of the loopback address. Raises `EngineError`.
    """
    with optional_packages(NAME):
        import xllamacpp

    threads = threads_or_cores(parameters.threads)
    common = xllamacpp.CommonParams()
    common.model.path = parameters.file
    common.n_ctx = parameters.context_tokens
    common.n_parallel = 1
    common.n_batch = common.n_ubatch = PROMPT_BATCH
    common.n_cache_reuse = REUSED_PIECE
    common.cache_ram_mib = CACHED_DIALOGUES_MIB
    # llama.cpp's threads wait for each other by spinning, so one that finds no core
    # free stalls all of them. Prompts gain from every core; generation is bound by
    # memory, and leaves one to speech, codecs and the event loop.
    common.cpuparams.n_threads = max(1, threads - 1)
    common.cpuparams_batch.n_threads = threads
    # Fitting to the memory of a graphics card reads the whole file once more.
    common.fit_params = False
    # The words below warm up what is used, the library's own what may be.
    common.warmup = False
    common.verbosity = _ERRORS_ONLY
    common.hostnames = [LOOPBACK]
    common.port = 0
    common.api_keys = [parameters.api_key]
    common.ui = False
    common.endpoint_slots = False
    common.n_threads_http = 1
    with library_errors(NAME, f"loading {parameters.file}"):
        server = xllamacpp.Server(common)
        for text in _WARM_UP:
            _say_a_word(server, text)
    return server


def _say_a_word(server: Any, text: str) -> None:
    errors: list[Any] = []

    def on_event(event: dict[str, Any]) -> bool:
        if "error" in event:
            errors.append(event["error"])
        return bool(errors)

    request = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": True}
    server.handle_chat_completions(request, on_event)
    if errors:
        raise EngineError(
            f"the model does not answer: {errors[0]}",
            engine=NAME,
            category=EngineErrorCategory.INTERNAL,
        )


def _answer(answers: IO[bytes], **members: str) -> None:
    answers.write(json.dumps(members).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
