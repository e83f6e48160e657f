from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.endpoint import Endpoint, TrustedNetworks
from xiaozhi_trio.wire.forwarded import client_of, said_secure
from xiaozhi_trio.wire.request_head import RequestHead

PROXY = Endpoint.of("10.0.0.1", 40000)
TRUSTED = TrustedNetworks(["10.0.0.0/8"])


def head(*headers: tuple[str, str]) -> RequestHead:
    fields = ((name.lower().encode(), value.encode("latin-1")) for name, value in headers)
    return RequestHead("GET", b"/", tuple(fields))


def for_(value: str) -> RequestHead:
    return head(("X-Forwarded-For", value))


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], "10.0.0.1:40000"),
        ([("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
        ([("X-Forwarded-For", "192.0.2.1:5")], "192.0.2.1:5"),
        ([("X-Forwarded-For", "2001:db8::1")], "2001:db8::1"),
        # What the client wrote itself is on the left, and means nothing.
        ([("X-Forwarded-For", "203.0.113.9, 192.0.2.1")], "192.0.2.1"),
        ([("X-Forwarded-For", "203.0.113.9, 192.0.2.1, 10.0.0.2")], "192.0.2.1"),
        ([("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
        ([("X-Forwarded-For", "unknown")], "10.0.0.1:40000"),
        ([("X-Forwarded-For", "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2"),
        ([("X-Forwarded-For", "10.0.0.3")], "10.0.0.3"),
        ([("Forwarded", "for=192.0.2.1;proto=https;by=10.0.0.1")], "192.0.2.1"),
        ([("Forwarded", 'proto=https; For="[2001:db8::1]:47011"')], "[2001:db8::1]:47011"),
        ([("Forwarded", "for=203.0.113.9, for=192.0.2.1")], "192.0.2.1"),
        ([("Forwarded", 'for="a, for=1.2.3.4", for=192.0.2.1')], "192.0.2.1"),
        ([("Forwarded", "for=192.0.2.1, proto=http")], "10.0.0.1:40000"),
        ([("Forwarded", "for=_hidden")], "10.0.0.1:40000"),
        ([("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "192.0.2.1")], "192.0.2.1"),
    ],
)
def test_the_client_behind_a_trusted_proxy(headers: list[tuple[str, str]], client: str) -> None:
    assert str(client_of(head(*headers), PROXY, TRUSTED)) == client


def test_nobody_else_is_believed() -> None:
    stranger = Endpoint.of("192.0.2.66", 1)
    assert client_of(for_("127.0.0.1"), stranger, TRUSTED) is stranger
    assert client_of(for_("10.0.0.1"), stranger, TRUSTED) is stranger


@pytest.mark.parametrize(
    ("headers", "secure"),
    [
        ([], None),
        ([("X-Forwarded-Proto", "https")], True),
        ([("X-Forwarded-Proto", "WSS, http")], True),
        ([("X-Forwarded-Proto", "http")], False),
        ([("X-Forwarded-Proto", "gopher")], None),
        ([("Forwarded", "for=192.0.2.1;proto=https")], True),
        ([("Forwarded", "for=192.0.2.1")], None),
    ],
)
def test_whether_the_client_used_tls(headers: list[tuple[str, str]], secure: bool | None) -> None:
    assert said_secure(head(*headers)) is secure


@pytest.mark.parametrize(
    "value", ['"' * 16_000, 'for="' + "\\" * 16_000, '"\\' * 8000, "," * 16_000]
)
def test_no_value_costs_much(value: str) -> None:
    assert client_of(head(("Forwarded", value)), PROXY, TRUSTED) == PROXY


@given(
    st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto"]),
    st.text(st.characters(max_codepoint=255)) | st.text(alphabet='for=;,"\\[]:.10 '),
)
def test_any_value_gives_some_client(name: str, value: str) -> None:
    assert isinstance(client_of(head((name, value)), PROXY, TRUSTED), Endpoint)
    assert said_secure(head((name, value))) in (True, False, None)
