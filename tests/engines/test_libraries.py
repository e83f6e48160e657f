from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import pytest

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory
from xiaozhi_trio.engines.libraries import (
    library_errors,
    only_file,
    optional_packages,
    threads_or_cores,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_package_says_what_to_install() -> None:
    with (
        pytest.raises(EngineError, match=r'no_such_thing.*pip install "xiaozhi-trio\[embedded\]"'),
        optional_packages("test"),
    ):
        import no_such_thing  # noqa: F401
    with (
        pytest.raises(EngineError) as caught,
        optional_packages("test"),
    ):
        raise ImportError("DLL load failed")
    assert caught.value.category is EngineErrorCategory.UNAVAILABLE


def test_warnings_of_imports_are_contained() -> None:
    with optional_packages("test"):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning):
        warnings.warn("ours", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize("bad_input", [True, False])
def test_library_errors_are_translated(bad_input: bool) -> None:
    with (
        pytest.raises(EngineError, match="test: reading failed: KeyError: 'x'") as caught,
        library_errors("test", "reading", bad_input=bad_input),
    ):
        raise KeyError("x")
    expected = EngineErrorCategory.BAD_REQUEST if bad_input else EngineErrorCategory.INTERNAL
    assert caught.value.category is expected


def test_engine_errors_pass_unchanged() -> None:
    error = EngineError("busy", engine="test", category=EngineErrorCategory.BUSY)
    with pytest.raises(EngineError) as caught, library_errors("test", "reading"):
        raise error
    assert caught.value is error


def test_only_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"expected one \*\.bin in .*, found 0"):
        only_file(tmp_path, "*.bin", "test")
    (tmp_path / "a.bin").touch()
    assert only_file(tmp_path, "*.bin", "test") == tmp_path / "a.bin"
    (tmp_path / "b.bin").touch()
    with pytest.raises(EngineError, match="found 2"):
        only_file(tmp_path, "*.bin", "test")


def test_threads_or_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_or_cores(3) == 3
    assert threads_or_cores(0) >= 1
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads_or_cores(0) == (os.cpu_count() or 1)
