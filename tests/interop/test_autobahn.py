"""The Autobahn test suite has nothing to object to, and the page says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

    RunProgram = Callable[..., AbstractContextManager[Mapping[str, Any]]]

pytestmark = [pytest.mark.interop, pytest.mark.sockets]


def load() -> ModuleType:
    path = Path(__file__).with_name("autobahn.py")
    spec = importlib.util.spec_from_file_location("autobahn_suite", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


autobahn = load()


def test_the_suite_has_no_objections(run_program: RunProgram, tmp_path: Path) -> None:
    python = autobahn.find_python()
    if python is None:
        pytest.skip("the Autobahn test suite needs a Python 2.7; PYTHON2 can name one")
    autobahn.install(python)
    with run_program("echo_gateway.py", autobahn.MESSAGE_BYTES) as address:
        report = autobahn.run(python, address, tmp_path, without=autobahn.LONG)
    assert autobahn.objections(report) == {}
    told = autobahn.PAGE.read_text("utf-8").splitlines()
    assert set(autobahn.rows(report)) <= set(told)
