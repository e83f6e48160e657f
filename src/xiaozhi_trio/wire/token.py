"""The device token: proof that OTA was asked by this device and not too long ago.

A token is `signature.timestamp`: the timestamp in Unix seconds, the signature the
unpadded URL-safe Base64 of HMAC-SHA256 over `client_id|device_id|timestamp`. Tokens
of xiaozhi-esp32-server 0.9.6 have this form, so that devices which were provisioned
there go on working when the same secret is configured.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

import attrs

_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,12})", re.ASCII)


class TokenInvalid(Exception):
    """A token that proves nothing.

    `reason` is `token_malformed`, `token_signature`, `token_expired` or
    `token_from_future`; the text never repeats the token.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _signature(secret: str, client_id: str, device_id: str, timestamp: str) -> str:
    message = f"{client_id}|{device_id}|{timestamp}".encode()
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


@attrs.frozen(kw_only=True)
class TokenSigner:
    """Issues and verifies the tokens of one secret."""

    secret: str = attrs.field(repr=False)
    lifetime_seconds: float
    """How long a token is valid after it was issued."""
    clock_skew_seconds: float = 300.0
    """How far in the future a token may have been issued, by another machine's clock."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""

    def __attrs_post_init__(self) -> None:
        if not self.secret:
            raise ValueError("tokens cannot be signed with an empty secret")

    def issue(self, client_id: str, device_id: str) -> str:
        """A token for the device, valid from now. Sign the device id as the device sent it."""
        timestamp = str(int(self.clock()))
        return f"{_signature(self.secret, client_id, device_id, timestamp)}.{timestamp}"

    def verify(self, token: str, client_id: str, device_ids: Iterable[str]) -> None:
        """Check that the token was issued to this client under one spelling of its device id.

        Raises `TokenInvalid`.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise TokenInvalid(
                "token_malformed",
                f"{len(token)} characters came that are not a signature of 43 characters, "
                "a dot and a Unix time",
            )
        signature, timestamp = match.groups()
        matching = [
            hmac.compare_digest(signature, _signature(self.secret, client_id, device_id, timestamp))
            for device_id in device_ids
        ]
        if not any(matching):
            raise TokenInvalid(
                "token_signature",
                "the token was issued for another device id or client id, or signed with "
                "another secret",
            )
        age = self.clock() - int(timestamp)
        if age > self.lifetime_seconds:
            raise TokenInvalid(
                "token_expired",
                f"the token is {age:.0f} s old, valid are {self.lifetime_seconds:.0f} s",
            )
        if age < -self.clock_skew_seconds:
            raise TokenInvalid(
                "token_from_future", f"the token is dated {-age:.0f} s ahead of this server's clock"
            )
