"""The rules that hold in every scenario."""

from __future__ import annotations

import pytest

from xiaozhi_trio.testing.loudspeaker import Losses
from xiaozhi_trio.testing.rules import broken_rules
from xiaozhi_trio.testing.timeline import Happening, Side


def broken(*kinds: tuple[float, str], losses: Losses | None = None) -> list[str]:
    happenings = [Happening(at, Side.SERVER, kind) for at, kind in kinds]
    return [name for name, _ in broken_rules(happenings, losses or Losses())]


GOOD = ((0.0, "hello"), (1.0, "tts start"), (1.1, "audio"), (1.1, "audio"), (2.0, "tts stop"))


def test_a_reply_as_it_should_be_breaks_nothing() -> None:
    assert broken(*GOOD, (3.0, "tts start"), (3.05, "audio"), (4.0, "tts stop")) == []


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ([(3.0, "audio")], "audio"),
        ([(3.0, "tts start"), (3.1, "tts start")], "pairing"),
        ([(3.0, "tts start"), (3.03, "audio")], "gap"),
        ([(3.0, "hello")], "hello"),
    ],
)
def test_a_broken_rule_is_named(more: list[tuple[float, str]], rule: str) -> None:
    assert broken(*GOOD, *more) == [rule]


@pytest.mark.parametrize("rule", ["overflow", "reset", "corrupt"])
def test_a_loss_is_named(rule: str) -> None:
    assert broken(losses=Losses(**{rule: 1})) == [rule]


def test_a_needless_stop_and_what_comes_late_to_a_deaf_device_break_nothing() -> None:
    assert broken((0.0, "tts stop"), losses=Losses(deaf=3)) == []


def test_a_new_connection_begins_anew() -> None:
    begun = [(0.0, "hello"), (1.0, "tts start"), (2.0, "connecting"), (2.1, "hello")]
    assert broken(*begun, (3.0, "tts start"), (3.1, "audio")) == []
    lost = [(0.0, "hello"), (1.0, "tts start"), (2.0, "hang up"), (2.1, "hello")]
    assert broken(*lost, (3.0, "audio")) == ["audio"]
