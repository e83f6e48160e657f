from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.handshake import Handshake, bearer_token, parse_handshake
from xiaozhi_trio.wire.refusal import HandshakeRefused

MAC = "aa:bb:cc:dd:ee:ff"
DEVICE = (b"device-id", MAC.encode())


def test_query_alone_identifies_a_browser() -> None:
    """The failure that this project was created for."""
    handshake = parse_handshake(
        [(b"host", b"192.168.1.2:8000"), (b"origin", b"http://127.0.0.1:8006")],
        "/xiaozhi/v1/?device-id=AA%3ABB%3ACC%3ADD%3AEE%3AFF&client-id=web_test_client",
    )
    assert handshake == Handshake(
        device_id=MAC,
        device_id_as_sent="AA:BB:CC:DD:EE:FF",
        client_id="web_test_client",
        host="192.168.1.2",
        from_browser=True,
    )


def test_headers_of_firmware() -> None:
    handshake = parse_handshake(
        [
            (b"Host", b"example.org"),
            (b"Authorization", b"Bearer abc"),
            (b"Client-Id", b"8d5b6a5e-0000-4000-8000-000000000000"),
            (b"Device-Id", MAC.encode()),
            (b"Protocol-Version", b"3"),
        ],
        b"/xiaozhi/v1/",
    )
    assert handshake == Handshake(
        device_id=MAC,
        client_id="8d5b6a5e-0000-4000-8000-000000000000",
        token="abc",
        protocol_version=3,
        host="example.org",
    )
    assert "abc" not in repr(handshake)


@pytest.mark.parametrize("name", [b"DEVICE-ID", b"device-id", b"dEvIcE-iD"])
def test_header_names_in_any_case(name: bytes) -> None:
    assert parse_handshake([(name, MAC.encode())], "/").device_id == MAC


def test_only_the_device_id_is_needed() -> None:
    handshake = parse_handshake([DEVICE], "/")
    assert handshake == Handshake(device_id=MAC)


def test_header_wins_over_the_query_and_the_query_fills_the_gaps() -> None:
    handshake = parse_handshake(
        [DEVICE, (b"Authorization", b"Bearer")],
        "/?device-id=11:22:33:44:55:66&client-id=c&authorization=Bearer%20t&protocol-version=2",
    )
    assert handshake.device_id == MAC
    assert handshake.client_id == "c"
    assert handshake.token == "t"
    assert handshake.protocol_version == 2
    assert not handshake.from_browser
    assert "header device-id wins over the query" in handshake.notes


def test_first_of_a_repeated_name_counts_and_is_noted() -> None:
    handshake = parse_handshake(
        [DEVICE, (b"Device-Id", b"other"), (b"Device-Id", b"third")],
        "/?client-id=one&client-id=two",
    )
    assert (handshake.device_id, handshake.client_id) == (MAC, "one")
    assert handshake.notes == (
        "repeated header device-id, the first counts",
        "repeated query parameter client-id, the first counts",
    )


@pytest.mark.parametrize("version", [b"0", b"4", b"two", b"\xff", b"1.0"])
def test_unknown_protocol_version_is_1_and_noted(version: Any) -> None:
    handshake = parse_handshake([DEVICE, (b"protocol-version", version)], "/")
    assert handshake.protocol_version == 1
    assert handshake.notes == ("unknown protocol version, taken as 1",)


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("", ""),
        ("Bearer", ""),
        ("bearer ", ""),
        ("Bearer abc", "abc"),
        ("Bearer  abc", "abc"),
        ("bEARER\tabc ", "abc"),
        ("abc", "abc"),
        ("my token", "my token"),
        ("Bearer my token", "my token"),
        ("Bearerabc", "Bearerabc"),
    ],
)
def test_forms_of_the_authorization(value: Any, token: str) -> None:
    assert bearer_token(value) == token


@pytest.mark.parametrize(
    ("value", "host"),
    [
        (b"example.org", "example.org"),
        (b"192.168.1.2:8000", "192.168.1.2"),
        (b"[fe80::1]:8000", "[fe80::1]"),
        (b"localhost:", "localhost"),
    ],
)
def test_host_without_its_port(value: Any, host: Any) -> None:
    assert parse_handshake([DEVICE, (b"host", value)], "/").host == host


@pytest.mark.parametrize("value", [b"\xff", b"a b", b"a/../b", b"x" * 300, b"a:b:c"])
def test_malformed_host_is_ignored_and_noted(value: Any) -> None:
    handshake = parse_handshake([DEVICE, (b"host", value)], "/")
    assert handshake.host == ""
    assert handshake.notes == ("malformed host, ignored",)


def test_subprotocol_is_noted() -> None:
    notes = parse_handshake([DEVICE, (b"Sec-WebSocket-Protocol", b"x")], "/").notes
    assert notes == ("subprotocol offered, none is spoken",)


@pytest.mark.parametrize(
    ("headers", "target", "reason", "from_browser"),
    [
        ([], "/", "device_id_missing", False),
        ([(b"Device-Id", b"  ")], "/", "device_id_missing", False),
        ([(b"Origin", b"null")], "/", "device_id_missing", True),
        ([], "/?client-id=x", "device_id_missing", True),
        ([], "/?token=x", "device_id_missing", False),
        ([(b"Device-Id", b"../../etc")], "/", "device_id_malformed", False),
        ([(b"Device-Id", b"\xff\xfe")], "/", "device_id_malformed", False),
        ([], "/?device-id=" + "x" * 65, "device_id_malformed", True),
        ([], "/?device-id=a%0Ab", "device_id_malformed", True),
        ([DEVICE, (b"Client-Id", b"x" * 129)], "/", "client_id_malformed", False),
        ([DEVICE, (b"Client-Id", "客户".encode())], "/", "client_id_malformed", False),
    ],
)
def test_refusals(headers: Any, target: str, reason: str, from_browser: Any) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        parse_handshake(headers, target)
    refusal = caught.value
    assert refusal.reason == reason
    assert refusal.from_browser is from_browser
    assert refusal.status == 400
    assert refusal.message_zh
    assert refusal.message_en
    assert refusal.fix in str(refusal)


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"device-id", b"client-id", b"authorization", b"host", b"x"]),
            st.binary(max_size=40),
        )
    ),
    target=st.binary(max_size=80),
)
def test_any_bytes_are_parsed_or_refused(headers: Any, target: str) -> None:
    with contextlib.suppress(HandshakeRefused):
        parse_handshake(headers, b"/?device-id=" + target)
