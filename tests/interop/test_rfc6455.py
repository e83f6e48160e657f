"""RFC 6455, case by case: the outcomes, and the page that tells them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    RunProgram = Callable[..., AbstractContextManager[Mapping[str, Any]]]

pytestmark = pytest.mark.sockets


def load() -> ModuleType:
    path = Path(__file__).with_name("rfc6455.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # attrs looks its classes' annotations up there.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


rfc6455 = load()


@pytest.fixture(scope="module")
def echoes(run_program: RunProgram) -> Iterator[Mapping[str, Any]]:
    with run_program("echo_gateway.py", rfc6455.MESSAGE_BYTES) as address:
        yield address


@pytest.mark.parametrize("case", rfc6455.CASES, ids=lambda case: f"{case.section} {case.does}")
def test_case(echoes: Mapping[str, Any], case: Any) -> None:
    assert rfc6455.outcome(echoes, case) == case.expected


def test_every_deviation_is_explained() -> None:
    for case in rfc6455.CASES:
        assert bool(case.ours) == bool(case.why), case
        assert case.ours != case.wants, case


def test_the_page_tells_the_outcomes() -> None:
    page = rfc6455.PAGE.read_text("utf-8")
    outcomes = [case.expected for case in rfc6455.CASES]
    assert rfc6455.with_part(page, "cases", rfc6455.table(outcomes)) == page
