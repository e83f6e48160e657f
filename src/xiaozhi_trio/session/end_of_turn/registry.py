"""Which end-of-turn strategies there are: those here and those of other packages.

An entry point of the group `xiaozhi_trio.end_of_turn` is named as the setting
`[listening] end_of_turn` names it, and is a callable that takes the `ListeningSettings`
and gives an `EndOfTurn`.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from xiaozhi_trio.session.end_of_turn.manual import Manual
from xiaozhi_trio.session.end_of_turn.punctuation import Punctuation
from xiaozhi_trio.session.end_of_turn.recognizer import RecognizerDecides
from xiaozhi_trio.session.end_of_turn.silence import Silence
from xiaozhi_trio.session.end_of_turn.strategy import EndOfTurn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xiaozhi_trio.config.settings import ListeningSettings

GROUP: Final = "xiaozhi_trio.end_of_turn"

_BUILT_IN: Final[Mapping[str, Callable[[ListeningSettings], EndOfTurn]]] = {
    "silence": Silence,
    "punctuation": Punctuation,
    "recognizer": RecognizerDecides,
    "manual": Manual,
}


class StrategyUnavailable(Exception):
    """The chosen end-of-turn strategy cannot be had; the message says what to change."""


def build_end_of_turn(settings: ListeningSettings) -> EndOfTurn:
    """The strategy that `[listening] end_of_turn` names. Raises `StrategyUnavailable`."""
    name = settings.end_of_turn
    if name in _BUILT_IN:
        return _BUILT_IN[name](settings)
    others = importlib.metadata.entry_points(group=GROUP)
    if name not in others.names:
        known = ", ".join(sorted({*_BUILT_IN, *others.names}))
        raise StrategyUnavailable(
            f'[listening] end_of_turn: came "{name}", expected one of {known}'
        )
    try:
        strategy = others[name].load()(settings)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise StrategyUnavailable(
            f'[listening] end_of_turn = "{name}" could not be made: {error}'
        ) from error
    if not isinstance(strategy, EndOfTurn):
        raise StrategyUnavailable(
            f'[listening] end_of_turn = "{name}" gave a {type(strategy).__name__}, which has no '
            "silence_ms"
        )
    return strategy
