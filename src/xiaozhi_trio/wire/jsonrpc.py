"""JSON-RPC 2.0 as the device's MCP server and this server speak it, without any I/O.

A payload is the decoded JSON of `{"type":"mcp","payload":…}`. Every client known
(firmware 2.4.2, py-xiaozhi, xiaozhi-sdk 0.5.1, the browser test page) tags its
payloads with `"jsonrpc":"2.0"` and repeats our ids as the whole numbers they were;
the firmware does not answer a request whose id is a string. Its error replies have
no `code`. Batches are not part of what clients send and are not taken.

Texts of violations name the kind of what came, never its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, TypeGuard

import attrs

from xiaozhi_trio.wire.violation import ProtocolViolation

METHOD_NOT_FOUND: Final = -32601
"""JSON-RPC error code: the method does not exist or is not available."""

MAX_ID: Final = 2**53 - 1
"""Largest id taken; beyond it JSON readers that hold numbers as doubles lose digits."""
MAX_METHOD_CHARACTERS: Final = 128
MAX_ERROR_CHARACTERS: Final = 500
"""A longer error message is cut here."""

_VERSION: Final = "2.0"


@attrs.frozen
class Request:
    """A call that wants an answer."""

    id: int
    method: str
    params: Mapping[str, object] | None = attrs.field(default=None, repr=False)
    """Not shown in the representation: `initialize` carries a token."""

    def payload(self) -> dict[str, object]:
        """The JSON to send."""
        return {"jsonrpc": _VERSION, "id": self.id, **_call(self.method, self.params)}


@attrs.frozen
class Notification:
    """A call that wants no answer."""

    method: str
    params: Mapping[str, object] | None = attrs.field(default=None, repr=False)

    def payload(self) -> dict[str, object]:
        """The JSON to send."""
        return {"jsonrpc": _VERSION, **_call(self.method, self.params)}


@attrs.frozen
class Result:
    """The answer to a request that succeeded."""

    id: int
    value: object = attrs.field(repr=False)
    """Any JSON, unchecked; its size is bounded by the transport's message limit alone."""

    def payload(self) -> dict[str, object]:
        """The JSON to send."""
        return {"jsonrpc": _VERSION, "id": self.id, "result": self.value}


@attrs.frozen
class Error:
    """The answer to a request that failed."""

    id: int | None
    """None where the peer could not read the id of what it answers."""
    message: str
    """At most `MAX_ERROR_CHARACTERS`; empty where the peer gave none."""
    code: int | None = None
    """None where the peer gave none, as the firmware does."""

    def payload(self) -> dict[str, object]:
        """The JSON to send."""
        error: dict[str, object] = {"message": self.message}
        if self.code is not None:
            error["code"] = self.code
        return {"jsonrpc": _VERSION, "id": self.id, "error": error}


Incoming: TypeAlias = Request | Notification | Result | Error


def parse(payload: object) -> Incoming:
    """What a payload is. Raises `ProtocolViolation` and nothing else.

    A member that is null counts as absent, save a null result. An error beside a
    result counts as the error.
    """
    if not isinstance(payload, dict):
        raise _unexpected("jsonrpc_not_object", "payload", payload, "an object")
    version = payload.get("jsonrpc")
    if version != _VERSION:
        raise _unexpected("jsonrpc_version", "jsonrpc", version, f'"{_VERSION}"')
    if payload.get("method") is not None:
        return _parse_call(payload)
    return _parse_reply(payload)


def _parse_call(payload: dict[str, object]) -> Request | Notification:
    method = payload["method"]
    if not isinstance(method, str) or not 0 < len(method) <= MAX_METHOD_CHARACTERS:
        expected = f"a string of 1 to {MAX_METHOD_CHARACTERS} characters"
        raise _unexpected("jsonrpc_method", "method", method, expected)
    params = payload.get("params")
    if params is not None and not isinstance(params, dict):
        raise _unexpected("jsonrpc_params", "params", params, "an object or nothing")
    if payload.get("id") is None:
        return Notification(method, params)
    return Request(_parse_id(payload), method, params)


def _parse_reply(payload: dict[str, object]) -> Result | Error:
    error = payload.get("error")
    if error is not None:
        if not isinstance(error, dict):
            raise _unexpected("jsonrpc_error", "error", error, "an object")
        message = error.get("message")
        code = error.get("code")
        return Error(
            id=None if payload.get("id") is None else _parse_id(payload),
            message=message[:MAX_ERROR_CHARACTERS] if isinstance(message, str) else "",
            code=code if _is_bounded_integer(code) else None,
        )
    if "result" in payload:
        return Result(_parse_id(payload), payload["result"])
    raise ProtocolViolation(
        "jsonrpc_shape", "neither a method nor a result nor an error; one of them is expected"
    )


def _parse_id(payload: dict[str, object]) -> int:
    value = payload.get("id")
    if not _is_bounded_integer(value):
        expected = f"a whole number of at most {MAX_ID}, and no string"
        raise _unexpected("jsonrpc_id", "id", value, expected)
    return value


def _is_bounded_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_ID <= value <= MAX_ID


def _call(method: str, params: Mapping[str, object] | None) -> dict[str, object]:
    return {"method": method} if params is None else {"method": method, "params": params}


def _unexpected(reason: str, member: str, value: object, expected: str) -> ProtocolViolation:
    return ProtocolViolation(reason, f"{member} is {_kind(value)}, expected {expected}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "absent"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)} items"
        case dict():
            return "an object"
    return "not JSON"
