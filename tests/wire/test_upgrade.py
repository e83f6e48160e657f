from __future__ import annotations

import base64
import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, parse_request_head
from xiaozhi_trio.wire.upgrade import check_upgrade, clean_head, same_path, wants_upgrade

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GOOD = parse_request_head(clean_head(KEY))
PATH = "/xiaozhi/v1/"


def with_header(name: bytes, *values: bytes) -> RequestHead:
    others = [field for field in GOOD.headers if field[0] != name]
    return RequestHead("GET", PATH.encode(), (*others, *((name, value) for value in values)))


def test_clean_head_is_an_upgrade_with_nothing_more() -> None:
    assert check_upgrade(GOOD, "/") == KEY
    assert len(GOOD.headers) == 5


@pytest.mark.parametrize(
    "values",
    [
        [b"Upgrade"],
        [b"upgrade"],
        [b"keep-alive, Upgrade"],
        [b"UPGRADE , keep-alive"],
        [b"keep-alive", b"Upgrade"],
        [b"\xff, Upgrade"],
    ],
)
def test_connection_in_any_case_and_order(values: list[bytes]) -> None:
    assert check_upgrade(with_header(b"connection", *values), PATH) == KEY


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("/xiaozhi/v1", "/xiaozhi/v1/", True),
        ("/xiaozhi/v1/", "/xiaozhi/v1", True),
        ("/", "", True),
        ("/xiaozhi/v2/", "/xiaozhi/v1/", False),
        ("/XIAOZHI/v1/", "/xiaozhi/v1/", False),
    ],
)
def test_paths(left: str, right: str, same: bool) -> None:
    assert same_path(left, right) is same


@pytest.mark.parametrize(
    ("head", "reason", "status"),
    [
        (attrs.evolve(GOOD, method="POST"), "wrong_method", 405),
        (GOOD, "wrong_path", 404),
        (with_header(b"connection", b"close"), "upgrade_headers_missing", 400),
        (with_header(b"upgrade", b"h2c"), "upgrade_headers_missing", 400),
        (with_header(b"sec-websocket-version", b"8"), "websocket_version", 426),
        (with_header(b"sec-websocket-version"), "websocket_version", 426),
        (with_header(b"sec-websocket-key"), "websocket_key_malformed", 400),
        (with_header(b"sec-websocket-key", b"!!"), "websocket_key_malformed", 400),
        (with_header(b"sec-websocket-key", b"\xff"), "websocket_key_malformed", 400),
        (with_header(b"sec-websocket-key", b"AAAA"), "websocket_key_malformed", 400),
    ],
)
def test_refusals(head: RequestHead, reason: str, status: int) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        check_upgrade(head, PATH)
    assert (caught.value.reason, caught.value.status) == (reason, status)


def test_wrong_path_names_the_right_one() -> None:
    with pytest.raises(HandshakeRefused) as caught:
        check_upgrade(GOOD, PATH)
    assert PATH in caught.value.message_en
    assert PATH in caught.value.message_zh


def test_what_is_meant_as_a_websocket() -> None:
    assert wants_upgrade(GOOD)
    assert wants_upgrade(with_header(b"connection"))
    assert not wants_upgrade(RequestHead("GET", b"/", ((b"connection", b"upgrade, HTTP2"),)))


NAMES = [b"connection", b"upgrade", b"sec-websocket-version", b"sec-websocket-key", b"x"]
VALUES = [b"Upgrade", b"websocket", b"13", KEY]


@given(
    st.sampled_from(["GET", "POST"]),
    st.binary(max_size=20) | st.just(PATH.encode()),
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=30)),
        max_size=8,
    ),
)
def test_any_head_is_an_upgrade_or_refused(
    method: str, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    head = RequestHead(method, target, tuple(headers))
    assert wants_upgrade(head) in (True, False)
    with contextlib.suppress(HandshakeRefused):
        key = check_upgrade(head, PATH)
        assert len(base64.b64decode(key)) == 16
        assert parse_request_head(clean_head(key)).first(b"sec-websocket-key") == key
