"""`tools/verify.py` runs what it should, tells what failed, and ends accordingly."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

TOP = Path(__file__).resolve().parents[2]
GOOD = "python -c ''"
BAD = "python -c 'raise SystemExit(3)'"


@pytest.fixture
def verify() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify", TOP / "tools" / "verify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcomes(capfd: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of the closing table, without the seconds."""
    table = capfd.readouterr().out.split("== verification\n")[1]
    words = [line.split() for line in table.splitlines()]
    return [[word for word in line if word != "s" and "." not in word] for line in words]


def test_all_pass(verify: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    checks = [verify.Check("one", [GOOD]), verify.Check("two", [GOOD, GOOD])]
    assert verify.main([], checks) == 0
    assert outcomes(capfd) == [["one", "passed"], ["two", "passed"]]


def test_quick_checks_are_all_run_and_slow_ones_not_after_a_failure(
    verify: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    checks = [
        verify.Check("one", [BAD], quick=True),
        verify.Check("two", [GOOD], quick=True),
        verify.Check("three", [GOOD]),
    ]
    assert verify.main([], checks) == 1
    assert outcomes(capfd) == [
        ["one", "FAILED"],
        ["two", "passed"],
        ["three", "not", "run"],
        ["FAILED:", "one"],
    ]


def test_a_check_ends_at_its_first_failing_command(
    verify: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    checks = [verify.Check("one", [BAD, "python -c 'print(\"late\")'"])]
    assert verify.main([], checks) == 1
    assert "\nlate\n" not in capfd.readouterr().out


def test_only_named_checks_are_run(verify: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    checks: list[Any] = [verify.Check("one", [BAD]), verify.Check("two", [GOOD])]
    assert verify.main(["two"], checks) == 0
    assert outcomes(capfd) == [["two", "passed"]]


def test_an_unknown_name_is_told(verify: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["on"], [verify.Check("one", [GOOD])]) == 2
    assert "no such check: on; there are: one" in capfd.readouterr().out
