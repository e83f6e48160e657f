"""Tokens that stay the same for a while.

Firmware writes each new token to its flash memory, which wears out, and asks for one
at every boot.
"""

from __future__ import annotations

import attrs

from xiaozhi_trio.wire.token import TokenSigner

PERIOD_SECONDS = 86_400.0
"""How long a device is given the same token."""


@attrs.frozen
class SteadyTokens:
    """Issues the tokens of a signer as if each were issued at the start of its period.

    A period is a day, or half of the tokens' lifetime where that is less, so a token
    is valid for at least half of its lifetime when it is handed out.
    """

    signer: TokenSigner

    def issue(self, client_id: str, device_id: str) -> str:
        """The token of this device for the present period."""
        period = min(PERIOD_SECONDS, self.signer.lifetime_seconds / 2)
        started = self.signer.clock() // period * period
        return attrs.evolve(self.signer, clock=lambda: started).issue(client_id, device_id)
