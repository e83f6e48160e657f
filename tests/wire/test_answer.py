from __future__ import annotations

import pytest

from xiaozhi_trio.wire.answer import Answer


def test_an_answer_ends_its_connection() -> None:
    answer = Answer(status=404, body=b"no", headers=(("Retry-After", "5"),))
    head, _, body = answer.encode().partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 404 Not Found",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 2",
        b"Retry-After: 5",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
    ]
    assert body == b"no"


@pytest.mark.parametrize(("status", "length"), [(200, b"Content-Length: 2\r\n"), (204, b"")])
def test_a_head_has_no_body(status: int, length: bytes) -> None:
    answer = Answer(status=status, body=b"no" if length else b"").encode("HEAD")
    assert answer.endswith(b"\r\n\r\n")
    assert length in answer
    assert (b"Content-Length" in answer) == bool(length)
