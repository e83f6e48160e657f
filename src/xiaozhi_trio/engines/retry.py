"""Whether an engine that failed is asked once more, before the next one is."""

from __future__ import annotations

from typing import Final

from xiaozhi_trio.engines.errors import EngineError, EngineErrorCategory

PAUSE_SECONDS: Final = 0.2
"""Before the second try: long enough for a connection that broke to be made anew, short
enough for somebody who waits for an answer."""

SOON_SECONDS: Final = 0.5
"""An engine that took longer to fail is not asked again. It has used up what patience there
is, and engines that try again by themselves (OpenAI-compatible servers) have done so."""

_PASSED_ON: Final = frozenset(
    {
        EngineErrorCategory.BUSY,
        EngineErrorCategory.RATE_LIMIT,
        EngineErrorCategory.TIMEOUT,
    }
)
"""What does not change in a moment: better ask another engine, if there is one."""


def is_worth_another_try(error: EngineError, *, seconds: float, alone: bool) -> bool:
    """Whether the engine that failed with `error` after `seconds` is asked again.

    `alone` tells that no other engine could be asked instead.
    """
    if not error.retryable or seconds > SOON_SECONDS:
        return False
    return alone or error.category not in _PASSED_ON
