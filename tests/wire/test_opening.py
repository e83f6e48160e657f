from __future__ import annotations

import pytest

from xiaozhi_trio.wire import dialect
from xiaozhi_trio.wire.endpoint import Endpoint
from xiaozhi_trio.wire.opening import Opening, PeerLeft, Stranger
from xiaozhi_trio.wire.refusal import HandshakeRefused

HEAD = b"GET /path HTTP/1.1\r\nHost: h\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.1 10.0.0.9 56324 8000\r\n"


def opened(*pieces: bytes, head_bytes: int = 1024) -> Opening:
    opening = Opening(head_bytes=head_bytes)
    for piece in pieces:
        opening.take(piece)
    return opening


def test_nothing_is_known_of_a_silent_peer() -> None:
    opening = opened()
    assert opening.is_silent
    assert not opening.has_spoken
    assert not any((opening.is_tls, opening.is_strange, opening.is_telling))
    assert opening.proxy_header() is None
    assert opening.head() is None
    assert opening.hand_over() == b""


def test_the_end_of_the_stream_is_a_peer_that_left() -> None:
    opening = opened(b"GET")
    with pytest.raises(PeerLeft):
        opening.take(b"")
    assert opening.has_spoken


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_head_comes_in_any_pieces_and_stays(size: int) -> None:
    opening = opened()
    sent = b"\r\n" + HEAD
    for start in range(0, len(sent), size):
        assert opening.head() is None
        assert not opening.is_strange
        opening.take(sent[start : start + size])
    opening.take(b"body")
    found = opening.head()
    assert found is not None
    assert (found[0].path, found[1]) == ("/path", len(sent))
    assert opening.hand_over() == sent + b"body"
    assert opening.is_silent


@pytest.mark.parametrize("head", [HEAD + b"rest", HEAD[:-1]])
def test_a_head_that_is_too_large(head: bytes) -> None:
    assert opened(HEAD, head_bytes=len(HEAD)).head() is not None
    with pytest.raises(HandshakeRefused) as caught:
        opened(head, head_bytes=len(HEAD) - 2).head()
    assert (caught.value.reason, caught.value.status) == ("head_too_large", 431)
    assert f"larger than {len(HEAD) - 2} bytes" in caught.value.message_en
    assert "head_bytes" in caught.value.fix


def test_a_head_that_is_malformed() -> None:
    with pytest.raises(HandshakeRefused, match="request_malformed"):
        opened(b"GET\r\n\r\n").head()


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"\x16\x03\x01" + bytes(13), dialect.TLS),
        (b"SSH-2.0-OpenSSH_9.6\r\n", dialect.SSH),
        (b"PRI * HTTP/2.0\r\n\r\n", dialect.HTTP_2),
        (V1, dialect.PROXY_PROTOCOL),
        (bytes(20), dialect.UNKNOWN),
    ],
)
def test_strangers(first: bytes, what: dialect.Dialect) -> None:
    opening = opened(first)
    assert opening.is_strange
    assert opening.is_telling
    assert opening.stranger().dialect is what
    assert opening.is_tls == (what is dialect.TLS)


def test_a_strange_byte_alone_tells_little() -> None:
    opening = opened(b"\x03")
    assert opening.is_strange
    assert not opening.is_telling
    opening.take(b"\x00\x00\x13\x0e\xe0" + bytes(10))
    assert opening.is_telling
    assert opening.stranger().dialect is dialect.RDP


def test_a_proxy_header_is_taken_off() -> None:
    opening = opened(V1[:10])
    assert opening.proxy_header() is None
    opening.take(V1[10:])
    header = opening.proxy_header()
    assert header is not None
    assert header.source == Endpoint.of("192.0.2.1", 56324)
    # It is the load balancer that has spoken so far.
    assert opening.is_silent
    assert not opening.has_spoken
    opening.take(HEAD)
    assert opening.has_spoken
    assert opening.head() is not None


def test_a_request_has_no_proxy_header() -> None:
    opening = opened(HEAD)
    header = opening.proxy_header()
    assert header is not None
    assert (header.source, header.size) == (None, 0)
    assert opening.hand_over() == HEAD


def test_a_malformed_proxy_header_is_a_stranger() -> None:
    with pytest.raises(Stranger, match="PROXY TCP4") as caught:
        opened(b"PROXY nonsense\r\n").proxy_header()
    assert caught.value.dialect.reason == "proxy_header_malformed"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"GET /", "handshake_timeout"), (V1[:9], "handshake_timeout"), (b"", "silent_peer")],
)
def test_a_peer_that_takes_too_long(sent: bytes, reason: str) -> None:
    refusal = opened(*filter(None, [sent])).overdue(0.5)
    assert isinstance(refusal, HandshakeRefused)
    assert (refusal.reason, refusal.status) == (reason, 408)
    assert "within 0.5 s" in refusal.message_en
    assert "handshake_seconds" in refusal.fix


def test_a_strange_peer_that_takes_too_long_is_no_less_strange() -> None:
    late = opened(b"\x16\x03\x01").overdue(0.5)
    assert isinstance(late, Stranger)
    assert late.dialect is dialect.TLS
