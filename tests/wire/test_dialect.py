from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire import dialect


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", dialect.TLS),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", dialect.HTTP_2),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n", dialect.PROXY_PROTOCOL),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", dialect.PROXY_PROTOCOL),
        (b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03", dialect.RDP),
        (b"\x00\x00\x00\x54\xffSMBr", dialect.SMB),
        (b"\x00\x00\x00\x54\xfeSMB@", dialect.SMB),
        (b"SSH-2.0-OpenSSH_9.6\r\n", dialect.SSH),
        (b"\x10\x1a\x00\x04MQTT\x04\x02\x00<", dialect.MQTT),
        (b"\x10\x80\x01\x00\x06MQIsdp\x03", dialect.MQTT),
        (b"\x01\x02\x03\x04", dialect.UNKNOWN),
        (b"\xff" * 20, dialect.UNKNOWN),
    ],
)
def test_first_bytes_tell_the_dialect(first_bytes: bytes, expected: Any) -> None:
    telling = first_bytes[: dialect.TELLING_BYTES]
    assert dialect.recognise(telling) is expected
    assert not dialect.might_be_http(telling)


@pytest.mark.parametrize(
    "received",
    [b"", b"G", b"GET", b"GET / HTTP/1.1", b"\r\n", b"\r\nGET /", b"PR", b"PROPFIND /", b"get /"],
)
def test_a_request_may_still_come(received: bytes) -> None:
    assert dialect.might_be_http(received)


@pytest.mark.parametrize("received", [b"\x16", b"SSH-", b"PRI ", b"PROXY ", b"GET\n", b"A" * 21])
def test_no_request_can_come(received: bytes) -> None:
    assert not dialect.might_be_http(received)


@given(
    st.sampled_from([b"", b"\x16\x03", b"\x03\x00", b"\x00", b"\x10", b"GET ", b"\r\n", b"SSH-"]),
    st.binary(max_size=40),
)
def test_any_bytes_are_some_dialect(begin: bytes, rest: bytes) -> None:
    received = begin + rest
    assert dialect.recognise(received).fix
    assert dialect.recognise(received[: dialect.TELLING_BYTES]) is dialect.recognise(received)
    # Once it cannot be HTTP, no further byte changes that.
    hopeless = [not dialect.might_be_http(received[:length]) for length in range(len(received) + 1)]
    assert hopeless == sorted(hopeless)
