"""Which devices are meant: ids and patterns of ids, in which `*` stands for any text or none.

There are no other wildcards, so that a match takes time linear in the id's length whatever
the configuration says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

ANYTHING: Final = "*"


@attrs.frozen
class DevicePatterns:
    """A set of device ids, given by patterns; letters match in either case."""

    _names: frozenset[str]
    _globs: Sequence[Sequence[str]]
    """The texts between the stars of each pattern that has any."""

    @classmethod
    def of(cls, patterns: Iterable[str]) -> DevicePatterns:
        """Prepare the patterns, all of them at once."""
        folded = frozenset(pattern.lower() for pattern in patterns)
        globs = sorted(pattern for pattern in folded if ANYTHING in pattern)
        return cls(folded.difference(globs), [pattern.split(ANYTHING) for pattern in globs])

    def __contains__(self, device_id: str) -> bool:
        """Whether one of the patterns matches.

        A pattern may be asked for like an id: a star in it is matched by a star only, so
        the answer is whether every id that it matches is in the set.
        """
        folded = device_id.lower()
        return folded in self._names or any(_matches(parts, folded) for parts in self._globs)


def _matches(parts: Sequence[str], text: str) -> bool:
    first, *between, last = parts
    end = len(text) - len(last)
    if end < len(first) or not (text.startswith(first) and text.endswith(last)):
        return False
    # Each part at its first place leaves the most room for those that follow.
    position = len(first)
    for part in between:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
