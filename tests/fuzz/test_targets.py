"""Every fuzz target for a moment: by hypothesis anywhere, by atheris where it is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).parent
SECONDS = 4


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_targets", HERE / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # attrs looks its classes' annotations up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TARGETS = load().TARGETS


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some of it replaced, cut out or put in again."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        middle = draw(st.binary(max_size=4) | st.just(data[start:end] * 2))
        data = data[:start] + middle + data[end:]
    return data


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@given(data=st.data())
def test_any_bytes_are_taken_or_refused(target: Any, data: st.DataObject) -> None:
    target.run(data.draw(st.binary(max_size=64) | mutated(target.seeds)))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_seeds_and_their_beginnings(target: Any) -> None:
    for seed in target.seeds:
        for length in range(len(seed) + 1):
            target.run(seed[:length])


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed; the extra `fuzz` has it where there is a wheel",
)
def test_atheris_finds_nothing_in_a_moment(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "run.py", "all", "--seconds", str(SECONDS)]
    fuzzed = subprocess.run(
        [*command, "--corpus", tmp_path], capture_output=True, text=True, timeout=SECONDS + 60
    )
    assert fuzzed.returncode == 0, fuzzed.stdout + fuzzed.stderr
