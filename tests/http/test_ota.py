from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.config.settings import AuthenticationSettings
from xiaozhi_trio.http.ota import BODY_BYTES, OtaEndpoint, reported_version
from xiaozhi_trio.telemetry.counters import Count, Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import CountingTokens, OpenClient
    from xiaozhi_trio.http.services import HttpServices

OTA = "/xiaozhi/ota/"
DEVICE = {"Device-Id": "AA-BB-CC-DD-EE-FF", "Client-Id": "6e1f"}


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.4.2", "2.4.2"),
        ("2.4.2.1", "2.4.2.1"),
        ("10", "10"),
        (" 1.0 ", "1.0"),
        ("2.4.2-dev", "2.4.2"),
        ("2.1.1rc1", "2.1.1"),
        ("1.2.x", "1.2"),
        ("1.", "1"),
        ("v1.2", "0.0.0"),
        ("", "0.0.0"),
        (".1", "0.0.0"),
        ("99999999999.1", "0.0.0"),
        ("1.99999999999", "1"),
        ("1.2.3.4.5.6.7.8.9.10", "1.2.3.4.5.6.7.8"),
        ("\u0661.2", "0.0.0"),
        ("-1.2", "0.0.0"),
        (2, "0.0.0"),
        (None, "0.0.0"),
        (["1"], "0.0.0"),
    ],
)
def test_a_version_is_integers_that_fit_or_none(version: object, expected: str) -> None:
    body = orjson.dumps({"application": {"version": version}})
    assert reported_version(body) == expected


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"1", b'{"application":1}', b'{"application":{}}', b"\xff"]
)
def test_a_body_without_a_version_is_none(body: bytes) -> None:
    assert reported_version(body) == "0.0.0"


firmware_versions = st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=8).map(
    lambda parts: ".".join(map(str, parts))
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(firmware_versions)
def test_a_version_of_integers_comes_back_as_it_is(version: str) -> None:
    assert reported_version(orjson.dumps({"application": {"version": version}})) == version


@given(
    st.binary()
    | json_values.map(orjson.dumps)
    | json_values.map(lambda value: orjson.dumps({"application": value}))
    | json_values.map(lambda value: orjson.dumps({"application": {"version": value}}))
)
def test_any_body_gives_a_version_that_clients_can_parse(body: bytes) -> None:
    assert re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}", reported_version(body))


async def test_a_token_is_for_the_normalised_device(
    open_client: OpenClient, tokens: CountingTokens
) -> None:
    async with open_client(authentication=AuthenticationSettings(enabled=True)) as client:
        answer = await client.post(OTA, headers=DEVICE)
    assert tokens.issued == [("6e1f", "aa:bb:cc:dd:ee:ff")]
    assert answer.json()["websocket"]["token"] == "token-for-aa:bb:cc:dd:ee:ff-6e1f"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_device_without_client_id_gets_a_token_too(
    open_client: OpenClient, tokens: CountingTokens
) -> None:
    async with open_client(authentication=AuthenticationSettings(enabled=True)) as client:
        await client.post(OTA, headers={"Device-Id": "aa:bb:cc:dd:ee:ff"})
    assert tokens.issued == [("", "aa:bb:cc:dd:ee:ff")]


@pytest.mark.parametrize(
    "authentication",
    [
        AuthenticationSettings(),
        AuthenticationSettings(enabled=True, allowed_devices=("AABBCCDDEEFF",)),
    ],
)
async def test_who_needs_no_token_gets_an_empty_one(
    open_client: OpenClient, tokens: CountingTokens, authentication: AuthenticationSettings
) -> None:
    async with open_client(authentication=authentication) as client:
        answer = await client.post(OTA, headers=DEVICE)
    assert answer.json()["websocket"]["token"] == ""
    assert tokens.issued == []


def test_an_allow_list_with_a_bad_id_is_refused_at_the_start(
    make_services: Callable[..., HttpServices],
) -> None:
    services = make_services(authentication=AuthenticationSettings(allowed_devices=("a b",)))
    with pytest.raises(ValueError, match="allowed_devices"):
        OtaEndpoint(services)


@pytest.mark.parametrize("client_id", ["x" * 129, "\u00fc", "a\x7fb"])
async def test_an_unsafe_client_id_is_refused(open_client: OpenClient, client_id: str) -> None:
    headers = {"Device-Id": "a", "Client-Id": client_id.encode("latin-1")}
    async with open_client() as client:
        answer = await client.post(OTA, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"] == "client_id_malformed"


async def test_a_body_at_the_limit_is_taken_and_above_it_refused(open_client: OpenClient) -> None:
    async with open_client() as client:
        fits = await client.post(OTA, headers=DEVICE, content=b" " * BODY_BYTES)
        above = await client.post(OTA, headers=DEVICE, content=b" " * (BODY_BYTES + 1))
    assert fits.status_code == 200
    assert above.status_code == 413
    assert above.json()["error"] == "body_too_large"


async def test_a_refusal_is_logged_and_counted_with_its_reason(
    open_client: OpenClient, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    counters = Counters()
    async with open_client(counters=counters) as client:
        await client.post(OTA, headers={"Device-Id": "../etc"})
        await client.post(OTA, headers={"Device-Id": "../etc"})
    [(level, _, fields)] = [line for line in log_lines if line[1] == "http request refused"]
    assert level == "INFO"
    assert (fields["reason"], fields["path"]) == ("device_id_malformed", OTA)
    assert fields["peer"] == "192.168.7.99:50000"
    assert "MAC address" in fields["detail"]
    assert counters.snapshot() == (
        Count("http_requests_refused", (("reason", "device_id_malformed"),), 2),
    )


async def test_no_token_is_logged(
    open_client: OpenClient, log_lines: list[tuple[str, str, dict[str, Any]]]
) -> None:
    async with open_client(authentication=AuthenticationSettings(enabled=True)) as client:
        await client.post(OTA, headers=DEVICE)
    assert any(message == "ota answered" for _, message, _ in log_lines)
    assert "token-for" not in repr(log_lines)


@pytest.mark.parametrize("path", ["/xiaozhi/ota/activate", "/xiaozhi/ota/activate/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_activation_is_done_before_it_is_asked_for(
    open_client: OpenClient, path: str, method: str
) -> None:
    async with open_client() as client:
        answer = await client.request(method, path, content=b"{}")
    assert answer.status_code == 200
    assert answer.json()["success"] is True
