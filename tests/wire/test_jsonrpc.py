from __future__ import annotations

from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire import jsonrpc
from xiaozhi_trio.wire.jsonrpc import Error, Notification, Request, Result, parse
from xiaozhi_trio.wire.violation import ProtocolViolation

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
)
json = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ids = st.integers(-jsonrpc.MAX_ID, jsonrpc.MAX_ID)
methods = st.text(min_size=1, max_size=jsonrpc.MAX_METHOD_CHARACTERS)
params = st.none() | st.dictionaries(st.text(), json, max_size=4)
incoming = (
    st.builds(Request, ids, methods, params)
    | st.builds(Notification, methods, params)
    | st.builds(Result, ids, json)
    | st.builds(
        Error, st.none() | ids, st.text(max_size=jsonrpc.MAX_ERROR_CHARACTERS), st.none() | ids
    )
)
almost = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json,
        "id": ids | json,
        "method": methods | json,
        "params": json,
        "result": json,
        "error": json | st.fixed_dictionaries({}, optional={"message": json, "code": json}),
    },
)


@given(incoming)
def test_what_is_built_is_parsed_back(message: jsonrpc.Incoming) -> None:
    assert parse(message.payload()) == message


@given(incoming)
def test_what_is_built_survives_the_encoder(message: jsonrpc.Incoming) -> None:
    payload = message.payload()
    sent = orjson.loads(orjson.dumps(payload))
    assert sent["jsonrpc"] == "2.0"
    assert type(parse(sent)) is type(message)


@given(json | almost | almost.map(lambda payload: {"jsonrpc": "2.0", **payload}))
def test_only_violations_are_raised(payload: object) -> None:
    with suppress(ProtocolViolation):
        parse(payload)


@given(almost.map(lambda payload: {**payload, "jsonrpc": "2.0"}))
def test_what_is_parsed_can_be_answered(payload: object) -> None:
    try:
        message = parse(payload)
    except ProtocolViolation:
        return
    if not isinstance(message, Notification) and message.id is not None:
        assert type(message.id) is int
        orjson.dumps(message.id)


def test_requests_carry_an_integer_id_and_params_only_where_there_are_some() -> None:
    assert Request(7, "tools/list").payload() == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/list",
    }
    assert Request(8, "tools/list", {"cursor": "self.x"}).payload() == {
        "jsonrpc": "2.0",
        "id": 8,
        "method": "tools/list",
        "params": {"cursor": "self.x"},
    }


def test_an_error_is_built_with_its_code() -> None:
    assert Error(3, "no", jsonrpc.METHOD_NOT_FOUND).payload() == {
        "jsonrpc": "2.0",
        "id": 3,
        "error": {"code": -32601, "message": "no"},
    }


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"id": 1, "result": {"tools": []}}, Result(1, {"tools": []})),
        ({"id": 1, "result": None}, Result(1, None)),
        ({"id": 1, "result": 0, "error": None}, Result(1, 0)),
        ({"id": 1, "error": {"message": "Unknown tool: x"}}, Error(1, "Unknown tool: x")),
        ({"id": 1, "error": {"code": -32603, "message": "x"}}, Error(1, "x", -32603)),
        ({"id": 1, "error": {}}, Error(1, "")),
        ({"id": 1, "error": {"message": 5, "code": "5"}}, Error(1, "")),
        ({"id": 1, "error": {"message": "x", "code": True}}, Error(1, "x")),
        ({"id": None, "error": {"message": "x"}}, Error(None, "x")),
        ({"error": {"message": "x"}}, Error(None, "x")),
        ({"id": 1, "result": 1, "error": {"message": "x"}}, Error(1, "x")),
        ({"method": "notifications/x"}, Notification("notifications/x")),
        ({"method": "ping", "id": None, "params": None}, Notification("ping")),
        ({"method": "ping", "id": 0, "params": {}}, Request(0, "ping", {})),
    ],
)
def test_shapes_that_clients_send(members: dict[str, object], expected: jsonrpc.Incoming) -> None:
    assert parse({"jsonrpc": "2.0", **members}) == expected


@pytest.mark.parametrize(
    ("payload", "reason", "text"),
    [
        (None, "jsonrpc_not_object", "payload is absent, expected an object"),
        ("{}", "jsonrpc_not_object", "payload is a string of 2 characters, expected an object"),
        ([{}, {}], "jsonrpc_not_object", "payload is an array of 2 items, expected an object"),
        (b"{}", "jsonrpc_not_object", "payload is not JSON, expected an object"),
        ({}, "jsonrpc_version", 'jsonrpc is absent, expected "2.0"'),
        ({"jsonrpc": 2.0}, "jsonrpc_version", 'jsonrpc is a number, expected "2.0"'),
        ({"jsonrpc": "2.0"}, "jsonrpc_shape", "neither a method nor a result nor an error"),
        ({"jsonrpc": "2.0", "id": 1}, "jsonrpc_shape", "neither a method"),
        ({"jsonrpc": "2.0", "method": 5}, "jsonrpc_method", "method is a number"),
        ({"jsonrpc": "2.0", "method": ""}, "jsonrpc_method", "of 0 characters"),
        ({"jsonrpc": "2.0", "method": "m" * 129}, "jsonrpc_method", "1 to 128 characters"),
        ({"jsonrpc": "2.0", "method": "m", "params": []}, "jsonrpc_params", "an array of 0"),
        ({"jsonrpc": "2.0", "method": "m", "id": "a"}, "jsonrpc_id", "and no string"),
        ({"jsonrpc": "2.0", "id": "1", "result": 1}, "jsonrpc_id", "id is a string"),
        ({"jsonrpc": "2.0", "id": True, "result": 1}, "jsonrpc_id", "id is a boolean"),
        ({"jsonrpc": "2.0", "id": 1.0, "result": 1}, "jsonrpc_id", "id is a number"),
        ({"jsonrpc": "2.0", "id": 2**53, "result": 1}, "jsonrpc_id", "id is a number"),
        ({"jsonrpc": "2.0", "id": {}, "result": 1}, "jsonrpc_id", "id is an object"),
        ({"jsonrpc": "2.0", "result": 1}, "jsonrpc_id", "id is absent"),
        ({"jsonrpc": "2.0", "id": 1, "error": "x"}, "jsonrpc_error", "error is a string"),
    ],
)
def test_what_is_not_jsonrpc_is_a_violation(payload: object, reason: str, text: str) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        parse(payload)
    assert raised.value.reason == reason
    assert text in str(raised.value)


def test_violations_do_not_repeat_what_came() -> None:
    with pytest.raises(ProtocolViolation) as raised:
        parse({"jsonrpc": "2.0", "id": "\x1b[31mred", "result": 1})
    assert "red" not in str(raised.value)


def test_error_messages_are_cut() -> None:
    error = parse({"jsonrpc": "2.0", "id": 1, "error": {"message": "x" * 65_536}})
    assert isinstance(error, Error)
    assert error.message == "x" * jsonrpc.MAX_ERROR_CHARACTERS


def test_error_codes_beyond_json_numbers_are_left_out() -> None:
    assert parse({"jsonrpc": "2.0", "id": 1, "error": {"code": 10**30}}) == Error(1, "")


def test_params_and_results_stay_out_of_representations() -> None:
    secret = {"token": "s3cret"}
    for message in (Request(1, "m", secret), Notification("m", secret), Result(1, secret)):
        assert "s3cret" not in repr(message)
