from __future__ import annotations

import json

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.config.toml_lines import KeyPath, locate_statements

DOCUMENT = '''\
# a comment with [brackets] and = signs
top = 1
dotted.inner."quoted key".last = 2

[server]   # comment
host = "a # b = [c]" # c
  'literal key' = 'x'
"esc\\u0061ped" = 1
text = """
[not.a.table]
not_a_key = 1 \\""" still
two quotes: """""
literal = \'\'\'
[neither]
\'\'\'
after = 07:32:00
list = [ # [comment
  "a]", 'b[',
  { x = 1, y = [2] },
]
table = { x = 1, "y" = { z = 2 } }
last = 1
[ server . "sub table" ]
key=1
[[one]]
inside = 1
[[two]]
inside = 1
[[two]]
inside = 2
[two.below]
key = 1
[[two.below.own]]
key = 1
[[two.below.own]]
[implied.deep]
end = 1'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("dotted",), 3),
        (("dotted", "inner", "quoted key", "last"), 3),
        (("server",), 5),
        (("server", "host"), 6),
        (("server", "literal key"), 7),
        (("server", "escaped"), 8),
        (("server", "text"), 9),
        (("server", "literal"), 13),
        (("server", "after"), 16),
        (("server", "list"), 17),
        (("server", "table"), 21),
        (("server", "table", "y", "z"), 21),
        (("server", "last"), 22),
        (("server", "sub table"), 23),
        (("server", "sub table", "key"), 24),
        (("server", "left_out"), 5),
        (("one",), 25),
        (("one", 0), 25),
        (("one", 0, "inside"), 26),
        (("one", 0, "left_out"), 25),
        (("one", "inside"), 25),
        (("two",), 27),
        (("two", 0, "inside"), 28),
        (("two", 1), 29),
        (("two", 1, "inside"), 30),
        (("two", 1, "below", "key"), 32),
        (("two", 1, "below", "own", 0, "key"), 34),
        (("two", 1, "below", "own", 1), 35),
        (("two", 2), 27),
        (("implied",), 36),
        (("implied", "deep", "end"), 37),
        (("not",), None),
        (("neither",), None),
        (("elsewhere", "key"), None),
    ],
)
def test_each_statement_is_found(path: KeyPath, line: int | None) -> None:
    tomli.loads(DOCUMENT)
    assert locate_statements(DOCUMENT).line_of(path) == line


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])), max_size=5))
def test_texts_hide_no_statement(texts: list[str]) -> None:
    literals = [text.replace("'", "") for text in texts]
    lines = [f"k{n} = '{text}'" for n, text in enumerate(literals)]
    lines += [f"m{n} = '''\n{text}'''" for n, text in enumerate(literals)]
    document = "\n".join([*lines, "last = 1"])
    tomli.loads(document)
    assert locate_statements(document).line_of(("last",)) == document.count("\n") + 1


def test_an_empty_document_has_no_lines() -> None:
    assert locate_statements("").line_of(("a",)) is None


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=6)
values = st.sampled_from(
    ["1", "-0.5", "true", "07:32:00", "'[a]'", '"b = 1 # \\""', "[ 1, [2] ]", "{ x = { y = 1 } }"]
)
line_ends = st.sampled_from(["\n", " \n", "\t# [c] = 'd\n", "\n\n\n"])


@given(st.dictionaries(names, st.dictionaries(names, values, max_size=4), max_size=4), line_ends)
def test_every_statement_is_found_on_its_line(
    tables: dict[str, dict[str, str]], line_end: str
) -> None:
    document, expected = "", {}

    def state(statement: str, *path: str) -> None:
        nonlocal document
        expected[path] = document.count("\n") + 1
        document += statement + line_end

    def quoted(name: str) -> str:
        return json.dumps(name, ensure_ascii=False)

    for table, keys in tables.items():
        state(f"[ {quoted(table)} ]", table)
        for key, value in keys.items():
            state(f"{quoted(key)} = {value}", table, key)
    tomli.loads(document)
    lines = locate_statements(document)
    assert {path: lines.line_of(path) for path in expected} == expected


@given(
    st.integers(0, len(DOCUMENT)),
    st.integers(0, 12),
    st.text(st.sampled_from("[]{}=,.\"'\\#\n a1"), max_size=6),
)
def test_whatever_is_toml_is_scanned(at: int, cut: int, put: str) -> None:
    document = DOCUMENT[:at] + put + DOCUMENT[at + cut :]
    try:
        tables = tomli.loads(document)
    except tomli.TOMLDecodeError:
        return
    lines = locate_statements(document)
    for key in tables:
        assert lines.line_of((key,)) in {None, *range(1, document.count("\n") + 2)}
