"""Who is connecting: the identity in the headers and the query of a WebSocket request."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Handshake:
    """What a peer said of itself before the upgrade."""

    device_id: str
    """Normalised: a MAC address in lower case with colons, else as sent."""
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
