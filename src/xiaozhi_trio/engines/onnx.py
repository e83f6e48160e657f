"""ONNX models on the CPU, with failures as `EngineError` and runs that can be interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xiaozhi_trio.engines.libraries import library_errors, optional_packages

if TYPE_CHECKING:
    from pathlib import Path

    from xiaozhi_trio.engines.worker import Stop


def open_onnx(engine: str, path: Path, *, threads: int) -> OnnxModel:
    """Load an ONNX model for the CPU. Blocks; raises `EngineError`."""
    with optional_packages(engine):
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

    errors = tuple(
        value
        for value in vars(state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning take the cores from the other models of the turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Fatal only: an interrupted run would be logged as an error of every node.
    options.log_severity_level = 4
    with library_errors(engine, f"loading {path}", *errors):
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    return OnnxModel(engine, session, onnxruntime.RunOptions, errors)


class OnnxModel:
    """An onnxruntime session whose failures are `EngineError`."""

    def __init__(
        self, engine: str, session: Any, run_options: Any, errors: tuple[type[Exception], ...]
    ) -> None:
        self._engine = engine
        self._session = session
        self._run_options = run_options
        self._errors = errors

    def run(self, inputs: dict[str, Any], stop: Stop | None = None) -> list[Any] | None:
        """Infer; blocks. None where `stop` ended it (checked between the nodes of the graph)."""
        options = self._run_options()
        if stop is not None:
            stop.on_set(lambda: setattr(options, "terminate", True))
        with library_errors(self._engine, "inference", *self._errors):
            try:
                outputs: list[Any] = self._session.run(None, inputs, options)
            except self._errors:
                if stop is not None and stop.is_set:
                    return None
                raise
        return outputs
