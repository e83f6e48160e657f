from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from xiaozhi_trio.telemetry.redaction import Redactor, is_secret_field

TOKEN = "A" * 40 + "-_9" + ".1767225600"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("authorization=Bearer abc next=1", "authorization=*** next=1"),
        ("?authorization=Bearer%20abc.1&device-id=x", "?authorization=***&device-id=x"),
        ("{'authorization': 'Bearer abc', 'host': 'h'}", "{'authorization': '***', 'host': 'h'}"),
        ('{"api_key": "abc", "b": 1}', '{"api_key": "***", "b": 1}'),
        ('"{\\"api-key\\":\\"abc\\"}"', '"{\\"api-key\\":\\"***\\"}"'),
        ("api_key=abc", "api_key=***"),
        ("access_token=abc&x=1", "access_token=***&x=1"),
        ("password : abc", "password : ***"),
        ("token=abc", "token=***"),
        ("bearer abcdefgh.i", "bearer ***"),
        (f"GET /?t={TOKEN} HTTP/1.1", "GET /?t=*** HTTP/1.1"),
        ("Incorrect API key provided: sk-abcdefghijklmnop123.", "Incorrect API key provided: ***."),
        ("first_token=0.31", "first_token=0.31"),
        ("reason=token_missing", "reason=token_missing"),
        ("bearer of news", "bearer of news"),
        ("token_days=30", "token_days=30"),
        ("authorization=***", "authorization=***"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, redacted: str) -> None:
    assert Redactor().redact(text) == redacted


def test_hiding_twice_changes_nothing() -> None:
    redact = Redactor().redact
    once = redact(f"authorization: Bearer {TOKEN} api_key=x")
    assert redact(once) == once == "authorization: *** api_key=***"


@pytest.mark.parametrize(
    "secret", ["hunter2", 'quo"te', "back\\slash", "钥匙钥匙", "a b&c=d", "a.*b"]
)
def test_a_known_secret_is_hidden_in_every_spelling(secret: str) -> None:
    redactor = Redactor()
    redactor.hide(secret)
    for spelling in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")):
        assert redactor.redact(f"x{spelling}y") == "x***y"


def test_the_longest_secret_goes_first() -> None:
    redactor = Redactor()
    redactor.hide("hunter")
    redactor.hide("hunter2")
    assert redactor.redact("hunter2") == "***"


def test_a_short_text_is_no_secret() -> None:
    redactor = Redactor()
    redactor.hide("")
    redactor.hide("abc")
    assert redactor.redact("abc") == "abc"


def test_fields_that_are_hidden_for_their_name() -> None:
    assert is_secret_field("Api-Key", "x")
    assert is_secret_field("x_auth_key", b"x")
    assert not is_secret_field("tokens", "x")
    assert not is_secret_field("first_token", 0.3)
    assert not is_secret_field("token", None)


@pytest.mark.parametrize("number", [12345678, 0.5])
def test_a_number_is_a_secret_only_under_the_whole_name(number: float) -> None:
    assert is_secret_field("password", number)
    assert is_secret_field("Api-Key", number)
    assert not is_secret_field("max_token", number)
    assert not is_secret_field("token", value=True)
