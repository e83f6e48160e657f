from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.token import TokenInvalid, TokenSigner

NOW = 1_800_000_000.9
SIGNER = TokenSigner(
    secret="s3cret", lifetime_seconds=100, clock_skew_seconds=10, clock=lambda: NOW
)
MAC = "aa:bb:cc:dd:ee:ff"


def at(seconds: float) -> TokenSigner:
    return attrs.evolve(SIGNER, clock=lambda: NOW + seconds)


def reason_of(signer: TokenSigner, token: str, client: str = "c", *devices: str) -> str:
    with pytest.raises(TokenInvalid) as caught:
        signer.verify(token, client, devices or [MAC])
    assert len(token) < 9 or token not in str(caught.value)
    return caught.value.reason


def test_form_is_that_of_the_reference_server() -> None:
    message = f"c|{MAC}|1800000000".encode()
    digest = hmac.new(b"s3cret", message, hashlib.sha256).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() + ".1800000000"
    assert SIGNER.issue("c", MAC) == expected
    SIGNER.verify(expected, "c", [MAC])


def test_any_of_the_spellings_may_have_been_signed() -> None:
    token = SIGNER.issue("c", MAC.upper())
    SIGNER.verify(token, "c", [MAC, MAC.upper()])
    assert reason_of(SIGNER, token) == "token_signature"


def test_age_is_bounded_both_ways() -> None:
    token = SIGNER.issue("c", MAC)
    at(99).verify(token, "c", [MAC])
    assert reason_of(at(101), token) == "token_expired"
    at(-9).verify(token, "c", [MAC])
    assert reason_of(at(-12), token) == "token_from_future"


@pytest.mark.parametrize(
    "token",
    ["", "x", ".", "a.b", "A" * 43, "A" * 43 + ".", "A" * 42 + ".1", "A" * 43 + ".-1",
     "A" * 43 + ".١", "A" * 43 + ".1\n", "A" * 43 + "." + "1" * 13, "é" * 43 + ".1"],
)  # fmt: skip
def test_malformed(token: str) -> None:
    assert reason_of(SIGNER, token) == "token_malformed"


def test_signature_covers_everything() -> None:
    token = SIGNER.issue("c", MAC)
    assert reason_of(SIGNER, token, "d") == "token_signature"
    assert reason_of(SIGNER, token, "c", "other") == "token_signature"
    assert reason_of(attrs.evolve(SIGNER, secret="other"), token) == "token_signature"
    assert reason_of(SIGNER, token[:-1] + "1") == "token_signature"


def test_a_forged_date_is_not_told_from_a_forged_signature() -> None:
    assert reason_of(SIGNER, "A" * 43 + ".1") == "token_signature"


def test_secret_is_neither_shown_nor_empty() -> None:
    assert "s3cret" not in repr(SIGNER)
    with pytest.raises(ValueError, match="empty secret"):
        TokenSigner(secret="", lifetime_seconds=1)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{43}\.[0-9]{1,12}"), st.text(), st.text())
def test_no_text_is_a_token(token: str, client: str, device: str) -> None:
    with pytest.raises(TokenInvalid) as caught:
        SIGNER.verify(token, client, [device])
    assert caught.value.reason in {"token_malformed", "token_signature"}


@given(st.text(), st.text(), st.text())
def test_a_token_is_good_for_its_own_device_only(client: str, device: str, other: str) -> None:
    token = SIGNER.issue(client, device)
    SIGNER.verify(token, client, [other, device])
    with contextlib.suppress(TokenInvalid):
        SIGNER.verify(token, client, [other])
        assert device == other
