from __future__ import annotations

import httpx
import orjson
import pytest

from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.openai_errors import (
    EXCERPT_CHARACTERS,
    ErrorReport,
    ErrorTranslator,
    find_report,
    parse_retry_after,
)

KEY = "sk-very-secret-0123456789"
ERRORS = ErrorTranslator("openai", KEY)


def body(**error: object) -> bytes:
    return orjson.dumps({"error": error})


@pytest.mark.parametrize(
    ("status", "content", "category", "retryable"),
    [
        (400, b"", Category.BAD_REQUEST, False),
        (401, body(message="no", code="invalid_api_key"), Category.AUTHENTICATION, False),
        (402, body(message="Insufficient Balance"), Category.QUOTA, False),
        (403, b"", Category.AUTHENTICATION, False),
        (404, body(message="no such model", code="model_not_found"), Category.BAD_REQUEST, False),
        (408, b"", Category.TIMEOUT, True),
        (413, b"<html>", Category.BAD_REQUEST, False),
        (422, b'{"detail": [{"msg": "x"}]}', Category.BAD_REQUEST, False),
        (429, body(message="slow down", type="requests"), Category.RATE_LIMIT, True),
        (429, body(message="pay", type="insufficient_quota"), Category.QUOTA, False),
        (429, body(message="pay", type="exceeded_current_quota_error"), Category.QUOTA, False),
        (429, body(message="pay", code="1113"), Category.QUOTA, False),
        (429, body(message="busy", type="engine_overloaded_error"), Category.UNAVAILABLE, True),
        (400, body(message="pay", code="Arrearage"), Category.QUOTA, False),
        (500, b"", Category.UNAVAILABLE, True),
        (502, b"<html>bad gateway</html>", Category.UNAVAILABLE, True),
        (503, b"\xff\xfe", Category.UNAVAILABLE, True),
        (529, b"", Category.UNAVAILABLE, True),
        (301, b"", Category.BAD_REQUEST, False),
    ],
)
def test_status_and_code_decide(
    status: int, content: bytes, category: Category, retryable: bool
) -> None:
    error = ERRORS.refused(status, {}, content)
    assert (error.category, error.retryable) == (category, retryable)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("report", "category", "retryable"),
    [
        (ErrorReport("x", (), None), Category.BAD_RESPONSE, False),
        (ErrorReport("x", ("unheard_of",), None), Category.BAD_RESPONSE, False),
        (ErrorReport("x", ("rate_limit_exceeded",), None), Category.RATE_LIMIT, True),
        (ErrorReport("x", ("server_error",), None), Category.UNAVAILABLE, True),
        (ErrorReport("x", ("429",), 429), Category.RATE_LIMIT, True),
        (ErrorReport("x", ("502",), 502), Category.UNAVAILABLE, True),
        (ErrorReport("x", ("400",), 400), Category.BAD_REQUEST, False),
    ],
)
def test_report_in_an_answer_of_status_200(
    report: ErrorReport, category: Category, retryable: bool
) -> None:
    error = ERRORS.reported(report)
    assert (error.category, error.retryable) == (category, retryable)


@pytest.mark.parametrize(
    ("value", "report"),
    [
        (
            {"error": {"message": "m", "type": "T", "code": None}},
            ErrorReport("m", ("t",), None),
        ),
        ({"error": {"message": "m", "code": 429}}, ErrorReport("m", ("429",), 429)),
        ({"error": {"msg": "m"}}, ErrorReport("m", (), None)),
        ({"error": {}}, ErrorReport("no reason given", (), None)),
        ({"error": {"code": "c"}}, ErrorReport("c", ("c",), None)),
        ({"error": "m"}, ErrorReport("m", (), None)),
        (
            {"object": "error", "message": "m", "code": 404},
            ErrorReport("m", ("404",), 404),
        ),
        ({"code": 20012, "message": "m", "data": None}, ErrorReport("m", ("20012",), None)),
        ({"detail": [{"msg": "x"}]}, ErrorReport("[{'msg': 'x'}]", (), None)),
        ({"choices": [], "message": "m"}, None),
        ({"error": None, "choices": []}, None),
        ({"text": "hello"}, None),
        ([], None),
        ("error", None),
        (None, None),
    ],
)
def test_find_report(value: object, report: ErrorReport | None) -> None:
    assert find_report(value) == report


def test_the_key_is_never_told() -> None:
    echoed = f"Incorrect API key provided: {KEY}"
    messages = [
        str(ERRORS.refused(401, {}, body(message=echoed))),
        str(ERRORS.refused(500, {}, echoed.encode())),
        str(ERRORS.refused(302, {"location": f"https://x/?key={KEY}"}, b"")),
        str(ERRORS.reported(ErrorReport(echoed, (), None))),
        str(ERRORS.bad_response("odd", echoed)),
        str(ERRORS.broken(httpx.ReadError(echoed), "host")),
        repr(ERRORS),
    ]
    for message in messages:
        assert KEY not in message
    assert "***" in messages[0]


def test_quotes_are_cut_and_escaped() -> None:
    quoted = ERRORS.excerpt("a\x1b[31m\x00b\r\n\tc\u202e密" + "x" * 1000)
    assert quoted.startswith("a\\x1b[31m\\x00b c\\u202e密x")
    assert len(quoted) < EXCERPT_CHARACTERS + 30
    assert quoted.endswith("…")
    assert ERRORS.excerpt(b"\xff\xe5\xa5\xbd") == "\ufffd好"


def test_a_redirect_names_its_target() -> None:
    assert "'https://new/v1'" in str(ERRORS.refused(308, {"location": "https://new/v1"}, b""))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("2", 2.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, lambda: 40.0) == seconds


@pytest.mark.parametrize(
    ("error", "category", "retryable"),
    [
        (httpx.ConnectError("refused"), Category.CONNECTIVITY, True),
        (httpx.ConnectTimeout("slow"), Category.CONNECTIVITY, True),
        (httpx.ProxyError("no"), Category.CONNECTIVITY, True),
        (httpx.ReadError("reset"), Category.CONNECTIVITY, True),
        (httpx.WriteError("reset"), Category.CONNECTIVITY, True),
        (httpx.RemoteProtocolError("gone"), Category.CONNECTIVITY, True),
        (httpx.PoolTimeout("full"), Category.TIMEOUT, True),
        (httpx.DecodingError("gzip"), Category.BAD_RESPONSE, False),
        (httpx.LocalProtocolError("odd"), Category.BAD_RESPONSE, False),
    ],
)
def test_broken_connections(error: httpx.HTTPError, category: Category, retryable: bool) -> None:
    translated = ERRORS.broken(error, "example.test")
    assert (translated.category, translated.retryable) == (category, retryable)
    assert "example.test" in str(translated)
    assert str(error) in str(translated)


def test_a_lost_reason_is_found_below() -> None:
    error = httpx.ConnectError("")
    error.__cause__ = OSError("certificate verify failed")
    assert "certificate verify failed" in str(ERRORS.broken(error, "host"))
    assert "ReadError" in str(ERRORS.broken(httpx.ReadError(""), "host"))
