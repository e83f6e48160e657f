"""The failures of an OpenAI-compatible server, translated into `EngineError`.

Servers agree on the HTTP status far more than on the body, so the status decides
and a code in the body only refines it. Codes known here, with their source:
`insufficient_quota`, `billing_hard_limit_reached`, `rate_limit_exceeded`,
`invalid_api_key`, `server_error` (OpenAI), `exceeded_current_quota_error`,
`rate_limit_reached_error`, `engine_overloaded_error`, `invalid_authentication_error`
(Moonshot), `Arrearage` (DashScope) and `1113` (Zhipu).
DeepSeek says 402 where the balance is used up.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from http.client import responses
from typing import TYPE_CHECKING

import attrs
import httpx
import orjson

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

if TYPE_CHECKING:
    from collections.abc import Callable

EXCERPT_CHARACTERS = 300
"""How much of a server's answer is quoted in an error."""

_Verdict = tuple[EngineErrorCategory, bool]
"""A category, and whether the same request may succeed a moment later."""

_BY_CODE: Mapping[str, _Verdict] = {
    "insufficient_quota": (EngineErrorCategory.QUOTA, False),
    "billing_hard_limit_reached": (EngineErrorCategory.QUOTA, False),
    "exceeded_current_quota_error": (EngineErrorCategory.QUOTA, False),
    "arrearage": (EngineErrorCategory.QUOTA, False),
    "1113": (EngineErrorCategory.QUOTA, False),
    "rate_limit_exceeded": (EngineErrorCategory.RATE_LIMIT, True),
    "rate_limit_reached_error": (EngineErrorCategory.RATE_LIMIT, True),
    "invalid_api_key": (EngineErrorCategory.AUTHENTICATION, False),
    "invalid_authentication_error": (EngineErrorCategory.AUTHENTICATION, False),
    "engine_overloaded_error": (EngineErrorCategory.UNAVAILABLE, True),
    "server_error": (EngineErrorCategory.UNAVAILABLE, True),
}

_BY_STATUS: Mapping[int, _Verdict] = {
    401: (EngineErrorCategory.AUTHENTICATION, False),
    402: (EngineErrorCategory.QUOTA, False),
    403: (EngineErrorCategory.AUTHENTICATION, False),
    408: (EngineErrorCategory.TIMEOUT, True),
    429: (EngineErrorCategory.RATE_LIMIT, True),
}

_ADVICE: Mapping[EngineErrorCategory, str] = {
    EngineErrorCategory.AUTHENTICATION: "check api_key and what it may use",
    EngineErrorCategory.QUOTA: "check the account's balance",
    EngineErrorCategory.BAD_REQUEST: "check base_url, model and the engine's other settings",
}


class RequestRefusedError(EngineError):
    """The server answered with an HTTP error status."""

    def __init__(
        self,
        message: str,
        *,
        engine: str,
        category: EngineErrorCategory,
        retryable: bool,
        retry_after: float | None,
        body: bytes,
    ) -> None:
        super().__init__(message, engine=engine, category=category, retryable=retryable)
        self.retry_after = retry_after
        """Seconds the server asks to wait before the next try, where it says so."""
        self.body = body
        """The answer as it came, its end cut off where it was long; not for the log."""


@attrs.frozen
class ErrorReport:
    """What a server says about its failure."""

    message: str
    codes: tuple[str, ...]
    """The members `code` and `type`, in lower case, whichever of them are given."""
    status: int | None
    """An HTTP status given as the code, as gateways do inside a stream."""


@attrs.frozen
class ErrorTranslator:
    """Makes the errors of one engine, keeping its secret out of them."""

    engine: str
    secret: str = attrs.field(repr=False)

    def excerpt(self, body: bytes | str) -> str:
        """The beginning of `body`, safe for a log line."""
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        if self.secret:
            text = text.replace(self.secret, "***")
        text = " ".join(text.split())
        cut = text[:EXCERPT_CHARACTERS] + ("…" if len(text) > EXCERPT_CHARACTERS else "")
        return "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in cut
        )

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> RequestRefusedError:
        """The error of an answer whose status is not 2xx."""
        report = find_report(_json_or_none(body))
        category, retryable = _verdict(status, report)
        parts = [f"the server answered {status} {responses.get(status, '')}".rstrip()]
        if (told := self.excerpt(report.message if report else body)) != "":
            parts.append(f"{told!r}" if report is None else told)
        if 300 <= status < 400:
            target = self.excerpt(headers.get("location", ""))
            parts.append(f"it redirects to {target!r}: give base_url as it is after the redirect")
        elif category in _ADVICE:
            parts.append(_ADVICE[category])
        return RequestRefusedError(
            "; ".join(parts),
            engine=self.engine,
            category=category,
            retryable=retryable,
            retry_after=parse_retry_after(headers.get("retry-after"), time.time),
            body=body,
        )

    def reported(self, report: ErrorReport) -> EngineError:
        """The error of a report that came inside an answer of status 200."""
        category, retryable = _verdict(report.status, report)
        parts = [f"the server reported an error: {self.excerpt(report.message)}"]
        if category in _ADVICE:
            parts.append(_ADVICE[category])
        return EngineError(
            "; ".join(parts), engine=self.engine, category=category, retryable=retryable
        )

    def bad_response(self, what: str, body: bytes | str = "") -> EngineError:
        """The error of an answer that is not what was asked for."""
        quoted = self.excerpt(body)
        return EngineError(
            f"{what}: {quoted!r}" if quoted else what,
            engine=self.engine,
            category=EngineErrorCategory.BAD_RESPONSE,
        )

    def timed_out(self, seconds: float) -> EngineError:
        """The error of a server that stays silent."""
        return EngineError(
            f"nothing came within {seconds:g} s; raise timeout_seconds if the server is that slow",
            engine=self.engine,
            category=EngineErrorCategory.TIMEOUT,
            retryable=True,
        )

    def broken(self, error: httpx.HTTPError, host: str) -> EngineError:
        """The error of a connection that could not be made or broke."""
        words = self.excerpt(_first_words(error))
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
            message = f"cannot connect to {host}: {words}; check base_url and that it runs"
            category = EngineErrorCategory.CONNECTIVITY
        elif isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
            message = f"the connection to {host} broke: {words}"
            category = EngineErrorCategory.CONNECTIVITY
        elif isinstance(error, httpx.TimeoutException):
            message = f"{host} was too slow: {words}"
            category = EngineErrorCategory.TIMEOUT
        else:
            message = f"{host} does not speak HTTP as expected: {words}"
            category = EngineErrorCategory.BAD_RESPONSE
        return EngineError(
            message,
            engine=self.engine,
            category=category,
            retryable=category is not EngineErrorCategory.BAD_RESPONSE,
        )


def find_report(value: object) -> ErrorReport | None:
    """The error told in a JSON value, None where it tells none.

    Three shapes are in use: OpenAI's `{"error": {"message", "type", "code"}}`, the
    same with a string for the error, and a flat object with `message` (vLLM, with
    `"object": "error"`; SiliconFlow) or `detail` (FastAPI).
    """
    if not isinstance(value, Mapping):
        return None
    error = value.get("error")
    if isinstance(error, str) and error:
        return _report(error, value)
    if isinstance(error, Mapping):
        return _report(error.get("message") or error.get("msg"), error)
    told = value.get("message") or value.get("detail")
    if told and "choices" not in value:
        return _report(told, value)
    return None


def parse_retry_after(value: str | None, now: Callable[[], float]) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3), None where it tells none."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now())


def _report(message: object, fields: Mapping[str, object]) -> ErrorReport:
    told = [fields.get("code"), fields.get("type")]
    codes = tuple(str(code).lower() for code in told if isinstance(code, (str, int)))
    status = next((int(code) for code in codes if code.isdecimal() and len(code) == 3), None)
    if not isinstance(message, str):
        message = "" if message is None else str(message)
    return ErrorReport(message or " ".join(codes) or "no reason given", codes, status)


def _verdict(status: int | None, report: ErrorReport | None) -> _Verdict:
    for code in report.codes if report else ():
        if code in _BY_CODE:
            return _BY_CODE[code]
    if status is None:
        return EngineErrorCategory.BAD_RESPONSE, False
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return EngineErrorCategory.UNAVAILABLE, True
    return EngineErrorCategory.BAD_REQUEST, False


def _json_or_none(body: bytes) -> object:
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value


def _first_words(error: BaseException) -> str:
    # httpcore loses the text of a TLS or name look-up failure on the way up.
    link: BaseException | None = error
    while link is not None:
        if str(link):
            return str(link)
        link = link.__cause__ or link.__context__
    return type(error).__name__
