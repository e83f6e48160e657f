from __future__ import annotations

import pytest

from xiaozhi_trio.http.tokens import SteadyTokens
from xiaozhi_trio.wire.token import TokenInvalid, TokenSigner

DAY = 86_400.0
WHO = ("6e1f", "aa:bb:cc:dd:ee:ff")


class Clock:
    """Starts at the beginning of a period of any of the lengths below."""

    now = 20_000 * DAY

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("lifetime", "period"), [(30 * DAY, DAY), (100.0, 50.0), (2.0, 1.0)])
def test_a_token_is_the_same_for_a_period_and_valid_throughout(
    lifetime: float, period: float
) -> None:
    clock = Clock()
    signer = TokenSigner(secret="s" * 32, lifetime_seconds=lifetime, clock=clock)
    tokens = SteadyTokens(signer)
    first = tokens.issue(*WHO)
    clock.now += period * 0.99
    assert tokens.issue(*WHO) == first
    signer.verify(first, WHO[0], [WHO[1]])


def test_a_new_period_brings_a_new_token_before_the_old_one_ends() -> None:
    clock = Clock()
    signer = TokenSigner(secret="s" * 32, lifetime_seconds=100.0, clock=clock)
    tokens = SteadyTokens(signer)
    first = tokens.issue(*WHO)
    clock.now += 51
    second = tokens.issue(*WHO)
    assert second != first
    signer.verify(first, WHO[0], [WHO[1]])
    clock.now += 50
    signer.verify(second, WHO[0], [WHO[1]])
    with pytest.raises(TokenInvalid):
        signer.verify(first, WHO[0], [WHO[1]])


def test_each_device_has_its_own_token() -> None:
    tokens = SteadyTokens(TokenSigner(secret="s" * 32, lifetime_seconds=DAY, clock=Clock()))
    assert tokens.issue("6e1f", "a") != tokens.issue("6e1f", "b")
