"""The certificate of the WebSocket port."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi_trio.listener import CannotListen

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import ServerSettings


def load_tls(server: ServerSettings) -> ssl.SSLContext | None:
    """The TLS context of the settings; None where they ask for none.

    Reads files: call it before the event loop or in a thread. Raises `CannotListen`.
    """
    if not server.tls_certificate and not server.tls_key:
        return None
    if not (server.tls_certificate and server.tls_key):
        given, missing = (
            ("tls_certificate", "tls_key") if server.tls_certificate else
            ("tls_key", "tls_certificate")
        )  # fmt: skip
        raise CannotListen(
            f"[server] {given} is set and {missing} is not; set both for wss://, or none for ws://"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = Path(server.tls_certificate), Path(server.tls_key)
    try:
        context.load_cert_chain(certificate.expanduser(), key.expanduser(), password="")
    except OSError as error:
        raise CannotListen(
            f"the TLS certificate {certificate} with the key {key} cannot be used ({error}); both "
            "are PEM files, the key without a password"
        ) from error
    return context
