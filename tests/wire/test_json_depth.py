from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.json_depth import MAX_JSON_DEPTH, is_too_deep
from xiaozhi_trio.wire.messages import decode
from xiaozhi_trio.wire.violation import ProtocolViolation


def nested(depth: int) -> str:
    return '{"a":[' * (depth // 2) + "[" * (depth % 2) + "]" * (depth % 2) + "]}" * (depth // 2)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 66, 1000])
def test_depth_is_bounded(depth: int) -> None:
    assert is_too_deep(nested(depth)) is (depth > MAX_JSON_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([[{}]] * 100),
        json.dumps({"text": "[" * 100}),
        json.dumps({"text": '\\"[' * 100, "{" * 100: "]}"}),
        json.dumps([{"a": '"'}, {"b": "\\"}] * 50),
    ],
)
def test_breadth_and_texts_are_not_depth(text: str) -> None:
    assert not is_too_deep(text)


@pytest.mark.parametrize("text", ['"[' * 130_000, '"\\' * 130_000 + "[" * 70, "[]" * 130_000])
def test_no_text_costs_much(text: str) -> None:
    began = time.perf_counter()
    is_too_deep(text)
    assert time.perf_counter() - began < 1


@given(
    st.recursive(
        st.text(alphabet='[]{}"\\a') | st.integers(),
        lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner),
        max_leaves=200,
    ),
    st.integers(0, 80),
)
def test_depth_is_that_of_the_value(value: object, wrapped: int) -> None:
    for _ in range(wrapped):
        value = [value]
    assert is_too_deep(json.dumps(value)) is (depth_of(value) > MAX_JSON_DEPTH)


@given(st.text(alphabet='[]{}"\\,:a', max_size=200))
def test_any_text_is_looked_at(text: str) -> None:
    assert is_too_deep(text) in (True, False)


@pytest.mark.parametrize("text", [f'{{"type":"x","a":{nested(64)}}}', b'{"type":"x"' + b"[" * 70])
def test_a_message_too_deep_is_a_violation(text: str | bytes) -> None:
    with pytest.raises(ProtocolViolation, match="deeper than 64") as caught:
        decode(text)
    assert caught.value.reason == "json_too_deep"
