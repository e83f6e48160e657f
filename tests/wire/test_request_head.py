from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.request_head import RequestHead, find_end, parse_request_head


def test_parses_names_in_lower_case_and_values_stripped() -> None:
    head = parse_request_head(
        b"\r\nGET /a/?b=%20 HTTP/1.1\r\nHost:x\r\nX-Name: \t \xe5\xb0\x8f \r\nEmpty:\r\n\r\n"
    )
    assert head == RequestHead(
        "GET",
        b"/a/?b=%20",
        ((b"host", b"x"), (b"x-name", b"\xe5\xb0\x8f"), (b"empty", b"")),
    )
    assert head.path == "/a/"
    assert head.first(b"host") == b"x"
    assert head.first(b"missing") is None


def test_parses_bare_line_feeds_and_http_1_0() -> None:
    assert parse_request_head(b"GET / HTTP/1.0\nHost: x\n\n").first(b"host") == b"x"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/a#b", "/a"),
        (b"http://host:1/a/b?c", "/a/b"),
        (b"http://host", "/"),
        (b"*", "*"),
        (b"/\xff", "/\xff"),
    ],
)
def test_path_of_a_target(target: str, path: str) -> None:
    assert RequestHead("GET", target, ()).path == path


def test_tokens_are_those_of_all_headers() -> None:
    head = RequestHead(
        "GET",
        b"/",
        ((b"connection", b"keep-alive , Upgrade"), (b"x", b"y"), (b"connection", b"\xff,CLOSE")),
    )
    assert head.tokens(b"connection") == {b"keep-alive", b"upgrade", b"\xff", b"close"}


@pytest.mark.parametrize(
    ("raw", "reason", "status"),
    [
        (b"GET /\r\n\r\n", "request_malformed", 400),
        (b"GET / a HTTP/1.1\r\n\r\n", "request_malformed", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "request_malformed", 400),
        (b"GET / HTTP/1.1\r\nSpace : x\r\n\r\n", "request_malformed", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "request_malformed", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", "request_malformed", 400),
        (b"GET / HTTP/2.0\r\n\r\n", "http_version", 505),
    ],
)
def test_refusals(raw: bytes, reason: str, status: int) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        parse_request_head(raw)
    assert (caught.value.reason, caught.value.status) == (reason, status)


def test_end_is_found_wherever_the_pieces_break() -> None:
    raw = b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\nrest"
    searched = 0
    for length in range(len(raw)):
        end = find_end(raw[:length], searched)
        if end is not None:
            assert (length, end) == (len(raw) - 4, len(raw) - 4)
            break
        searched = length
    else:
        pytest.fail("no end found")


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(HandshakeRefused):
        parse_request_head(b"GET / HTTP/1.1\r\n" + raw + b"\r\n\r\n")


@given(st.binary(max_size=100))
def test_any_first_line_is_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(HandshakeRefused):
        head = parse_request_head(raw + b"\r\n\r\n")
        assert head.path is not None
        assert head.tokens(b"connection") is not None


@given(st.binary(max_size=60), st.integers(0, 60))
def test_where_the_search_goes_on_does_not_matter(raw: bytes, searched: int) -> None:
    if find_end(raw[:searched]) is None:
        assert find_end(raw, min(searched, len(raw))) == find_end(raw)
