from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.onnx import OnnxModel, open_onnx
from xiaozhi_trio.engines.worker import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class LibraryFailure(Exception):
    """As onnxruntime's: derived from Exception alone."""


class RunOptions:
    terminate = False


class FakeSession:
    def __init__(self, run: Callable[[RunOptions], list[Any]]) -> None:
        self._run = run

    def run(self, _: None, inputs: dict[str, Any], options: RunOptions) -> list[Any]:
        return self._run(options)


def model(run: Callable[[RunOptions], list[Any]]) -> OnnxModel:
    return OnnxModel("test", FakeSession(run), RunOptions, (LibraryFailure,))


def test_outputs_come_through() -> None:
    assert model(lambda _: [1, 2]).run({}) == [1, 2]


def test_failure_is_translated() -> None:
    def fail(_: RunOptions) -> list[Any]:
        raise LibraryFailure("bad shape")

    with pytest.raises(EngineError, match="test: inference failed: LibraryFailure: bad shape"):
        model(fail).run({})
    with pytest.raises(EngineError):
        model(fail).run({}, Stop())


def test_stop_interrupts_a_run() -> None:
    stop = Stop()

    def interrupted(options: RunOptions) -> list[Any]:
        stop.set()
        assert options.terminate
        raise LibraryFailure("terminated")

    assert model(interrupted).run({}, stop) is None


def test_file_that_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"test: loading .*broken\.onnx failed"):
        open_onnx("test", path, threads=1)
