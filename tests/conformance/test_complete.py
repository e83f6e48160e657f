"""Every number of the conformance list that this version owes has a test that bears it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

OWED = {*range(1, 19), *range(27, 85), "032a", "032b", "032c", "032d"}


def numbers_of(name: str) -> set[int | str]:
    """The numbers at the head of a test's name: `test_044_045_046_…`, `test_032a_…`."""
    head = re.match(r"test((?:_[0-9]{3}[a-z]?)+)(?:_|$)", name)
    words = head[1].strip("_").split("_") if head else []
    return {int(word) if word.isdigit() else word for word in words}


def test_no_number_is_left_out() -> None:
    shown: set[int | str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                shown |= numbers_of(node.name)
    assert sorted(map(str, OWED - shown)) == []
