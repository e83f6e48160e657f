"""Who is connecting: the identity in the headers and the query of a WebSocket request.

Firmware sends `Device-Id`, `Client-Id`, `Authorization` and `Protocol-Version` as
headers (78/xiaozhi-esp32 2.4.2). A page in a browser cannot set headers on a
WebSocket, so it sends the same names, in lower case, in the query.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from xiaozhi_trio.wire.device_id import normalise_device_id
from xiaozhi_trio.wire.refusal import HandshakeRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@attrs.frozen(kw_only=True)
class Handshake:
    """What a peer said of itself before the upgrade."""

    device_id: str
    """Normalised: a MAC address in lower case with colons, else as sent."""
    device_id_as_sent: str = ""
    """The spelling a token may have been signed for; empty where it is that of `device_id`."""
    client_id: str = ""
    """Empty where the client sends none (xiaozhi-client 0.1.5)."""
    token: str = attrs.field(default="", repr=False)
    """Without the `Bearer` prefix; empty where none was sent."""
    protocol_version: int = 1
    """Binary framing announced by the `Protocol-Version` header: 1, 2 or 3."""
    host: str = ""
    """The address the device used, from the `Host` header, without a port."""
    from_browser: bool = False
    """It sent `Origin`, or its identity in the query: it cannot read a refused upgrade."""
    notes: tuple[str, ...] = ()
    """What was odd about the request though it was accepted, for the log."""


_IDENTITY: Final = ("device-id", "client-id", "authorization", "protocol-version")
_CLIENT_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")


def parse_handshake(headers: Sequence[tuple[bytes, bytes]], target: bytes | str) -> Handshake:
    """Merge the headers with the query of the request target.

    A header wins over the query, the first of a repeated name over the others; both
    are told in `Handshake.notes`. An unknown `Protocol-Version` counts as 1.

    Raises `HandshakeRefused` with the reason `device_id_missing`,
    `device_id_malformed` or `client_id_malformed`.
    """
    notes: list[str] = []
    fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    in_headers = _first_of_each(fields, (*_IDENTITY, "origin", "host"), "header", notes)
    in_query = _first_of_each(_query(target), _IDENTITY, "query parameter", notes)
    notes.extend(
        f"header {name} wins over the query"
        for name in _IDENTITY
        if name in in_headers and in_query.get(name, in_headers[name]) != in_headers[name]
    )
    if any(name == "sec-websocket-protocol" for name, _ in fields):
        notes.append("subprotocol offered, none is spoken")

    said: dict[str, Any] = {
        # A client that can set Device-Id as a header also reads a refused upgrade.
        "from_browser": "origin" in in_headers or ("device-id" not in in_headers and bool(in_query))
    }
    identity = in_query | in_headers
    if "device-id" in identity:
        said["device_id"] = said["device_id_as_sent"] = identity["device-id"]
    if "client-id" in identity:
        said["client_id"] = identity["client-id"]
    # SDK 0.5.1 sends a bare `Bearer` where it has no token.
    said["token"] = bearer_token(in_headers.get("authorization", "")) or bearer_token(
        in_query.get("authorization", "")
    )
    version = identity.get("protocol-version", "1")
    if version in {"1", "2", "3"}:
        said["protocol_version"] = int(version)
    else:
        notes.append("unknown protocol version, taken as 1")
    if "host" in in_headers:
        if match := _HOST.fullmatch(in_headers["host"]):
            said["host"] = match[1]
        else:
            notes.append("malformed host, ignored")
    said["notes"] = tuple(notes)
    return _structure(said)


def bearer_token(authorization: str) -> str:
    """The token of an `Authorization` value.

    With or without the `Bearer` scheme, in any case: firmware sends a token that
    has a space as it stands. Empty where there is none.
    """
    parts = authorization.split(None, 1)
    if parts and parts[0].lower() == "bearer":
        return parts[1].strip() if len(parts) > 1 else ""
    return authorization.strip()


def _query(target: bytes | str) -> list[tuple[str, str]]:
    text = target.decode("latin-1") if isinstance(target, bytes) else target
    return parse_qsl(text.partition("?")[2].partition("#")[0])


def _first_of_each(
    pairs: Iterable[tuple[str, str]], wanted: Sequence[str], kind: str, notes: list[str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.lower(), raw_value.strip()
        if name not in wanted or not value:
            continue
        if name in found:
            note = f"repeated {kind} {name}, the first counts"
            if note not in notes:
                notes.append(note)
        else:
            found[name] = value
    return found


def _checked_device_id(value: str, _type: object) -> str:
    return normalise_device_id(value)


def _checked_client_id(value: str, _type: object) -> str:
    if not _CLIENT_ID.fullmatch(value):
        raise ValueError(
            f"the client id has {len(value)} characters, or others than printable ASCII; "
            "at most 128 of these are allowed"
        )
    return value


_CONVERTER: Final = Converter()
_CONVERTER.register_structure_hook(
    Handshake,
    make_dict_structure_fn(
        Handshake,
        _CONVERTER,
        device_id=override(struct_hook=_checked_device_id),
        client_id=override(struct_hook=_checked_client_id),
    ),
)


def _structure(said: dict[str, Any]) -> Handshake:
    try:
        handshake = _CONVERTER.structure(said, Handshake)
    except ClassValidationError as errors:
        _refuse(errors, from_browser=said["from_browser"])
    if handshake.device_id_as_sent == handshake.device_id:
        return attrs.evolve(handshake, device_id_as_sent="")
    return handshake


def _refuse(errors: ClassValidationError, *, from_browser: bool) -> NoReturn:
    """Turn what cattrs found into the one reason that the peer is told."""
    noted, others = errors.group_exceptions()
    if others:
        raise errors
    found = {note.name: error for error, note in noted}
    device_id, client_id = found.get("device_id"), found.get("client_id")
    if isinstance(device_id, KeyError):
        raise HandshakeRefused(
            reason="device_id_missing",
            status=400,
            message_zh="缺少设备标识，请用请求头 Device-Id 或地址参数 device-id 提供 MAC 地址",
            message_en="no device id came; it is expected in the header Device-Id or in the query",
            fix="send the header Device-Id, or add ?device-id=MAC&client-id=UUID to the address",
            from_browser=from_browser,
        ) from errors
    if isinstance(device_id, ValueError):
        raise HandshakeRefused(
            reason="device_id_malformed",
            status=400,
            message_zh="设备标识格式不正确，应为 aa:bb:cc:dd:ee:ff 形式的 MAC 地址",
            message_en=str(device_id),
            fix="send a MAC address such as aa:bb:cc:dd:ee:ff as the device id",
            from_browser=from_browser,
        ) from errors
    if isinstance(client_id, ValueError):
        raise HandshakeRefused(
            reason="client_id_malformed",
            status=400,
            message_zh="客户端标识格式不正确，应为 UUID",
            message_en=str(client_id),
            fix="send a UUID as the client id, or none",
            from_browser=from_browser,
        ) from errors
    raise errors
