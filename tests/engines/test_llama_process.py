from __future__ import annotations

import io
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import orjson
import pytest

from xiaozhi_trio.engines.llm import llama_process
from xiaozhi_trio.engines.llm.llama_process import ModelParameters, serve

PARAMETERS = ModelParameters(file="model.gguf", context_tokens=1000, threads=3)


class FakeServer:
    """Stands for `xllamacpp.Server`."""

    instance: FakeServer
    events: tuple[dict[str, Any], ...] = ({"choices": []}, {"choices": []})

    def __init__(self, parameters: Any) -> None:
        if "broken" in parameters.model.path:
            raise RuntimeError("Failed to init server")
        FakeServer.instance = self
        self.parameters = parameters
        self.listening_address = "http://127.0.0.1:12345"
        self.requests: list[dict[str, Any]] = []
        self.taken = 0

    def handle_chat_completions(self, request: dict[str, Any], callback: Any) -> None:
        self.requests.append(request)
        for event in self.events:
            self.taken += 1
            if callback(event):
                return


class Ended(BaseException):
    """Stands for the end of the process."""


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

    def leave(status: int) -> None:
        assert status == 0
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)


def orders(parameters: ModelParameters = PARAMETERS) -> io.BytesIO:
    return io.BytesIO(orjson.dumps(attrs.asdict(parameters)) + b"\n")


def test_model_is_set_up_and_warmed_up() -> None:
    answers = io.BytesIO()
    with pytest.raises(Ended):
        serve(orders(), answers)
    assert orjson.loads(answers.getvalue()) == {"url": "http://127.0.0.1:12345"}
    server = FakeServer.instance
    assert server.parameters.model.path == "model.gguf"
    assert server.parameters.n_ctx == 1000
    assert server.parameters.hostnames == ["127.0.0.1"]
    assert server.parameters.port == 0
    assert server.parameters.api_keys == [PARAMETERS.api_key]
    assert server.parameters.cpuparams.n_threads == 2
    assert server.parameters.cpuparams_batch.n_threads == 3
    assert [request["messages"][0]["content"] for request in server.requests] == ["你好", "Hello"]
    assert [request["max_tokens"] for request in server.requests] == [1, 1]


def test_each_key_is_another_and_stays_hidden() -> None:
    another = ModelParameters(file="model.gguf", context_tokens=1000, threads=3)
    assert another.api_key != PARAMETERS.api_key
    assert len(another.api_key) > 30
    assert another.api_key not in repr(another)


@pytest.mark.parametrize(
    ("file", "events", "error"),
    [
        ("broken.gguf", (), "loading broken.gguf failed: RuntimeError: Failed to init server"),
        (
            "model.gguf",
            ({"error": "no slot"}, {"choices": []}),
            "the model does not answer: no slot",
        ),
    ],
)
def test_model_that_cannot_be_loaded(
    file: str, events: Any, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeServer, "events", events)
    answers = io.BytesIO()
    serve(orders(attrs.evolve(PARAMETERS, file=file)), answers)
    assert orjson.loads(answers.getvalue()) == {"error": error, "category": "internal"}


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    answers = io.BytesIO()
    serve(orders(), answers)
    answer = orjson.loads(answers.getvalue())
    assert answer["category"] == "unavailable"
    assert 'pip install "xiaozhi-trio[embedded]"' in answer["error"]


def test_what_a_library_prints_is_not_the_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def noisy(_: Any, answers: Any) -> None:
        os.write(1, b"loading\n")
        answers.write(b"answer\n")

    monkeypatch.setattr(llama_process, "serve", noisy)
    saved = os.dup(1)
    try:
        llama_process.main()
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    captured = capfd.readouterr()
    assert captured.out == "answer\n"
    assert captured.err == "loading\n"
