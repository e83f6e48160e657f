"""Whether a device may come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xiaozhi_trio.wire.device_id import normalise_device_id
from xiaozhi_trio.wire.refusal import HandshakeRefused
from xiaozhi_trio.wire.token import TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xiaozhi_trio.wire.handshake import Handshake
    from xiaozhi_trio.wire.token import TokenSigner

_CHINESE: Final = {
    "token_malformed": "令牌格式不正确",
    "token_signature": "令牌与设备不符，或由其他密钥签发",
    "token_expired": "令牌已过期",
    "token_from_future": "令牌的时间在未来",
}
_FIXES: Final = {
    "token_malformed": "let the device fetch its token from OTA and send it unchanged",
    "token_signature": "let the device fetch a new token from OTA with the same Device-Id and "
    "Client-Id that it connects with, and check [authentication] secret",
    "token_expired": "restart the device, so that it fetches a new token from OTA",
    "token_from_future": "set the clocks of the servers, or raise [authentication] "
    "clock_skew_seconds",
}


class Authenticator:
    """Decides by token and allow-list."""

    def __init__(self, signer: TokenSigner | None, allowed_devices: Iterable[str] = ()) -> None:
        """Without a signer every device may come in.

        Raises ValueError for an allowed device that is no device id.
        """
        self._signer = signer
        self._allowed = frozenset(map(normalise_device_id, allowed_devices))

    def check(self, handshake: Handshake) -> None:
        """Raises `HandshakeRefused` with a reason of its own for each way a token can fail."""
        if self._signer is None or handshake.device_id in self._allowed:
            return
        if not handshake.token:
            raise HandshakeRefused(
                reason="token_missing",
                message_zh="没有携带令牌",
                message_en="no token came; it is expected in the header Authorization "
                "or in the query",
                fix="let the device fetch a token from OTA, or name it in [authentication] "
                "allowed_devices",
                from_browser=handshake.from_browser,
            )
        spellings = {handshake.device_id, handshake.device_id_as_sent or handshake.device_id}
        try:
            self._signer.verify(handshake.token, handshake.client_id, spellings)
        except TokenInvalid as invalid:
            raise HandshakeRefused(
                reason=invalid.reason,
                message_zh=_CHINESE[invalid.reason],
                message_en=str(invalid),
                fix=_FIXES[invalid.reason],
                from_browser=handshake.from_browser,
            ) from invalid
