"""How deep JSON is nested, told before it is parsed."""

from __future__ import annotations

import re
from typing import Final

MAX_JSON_DEPTH: Final = 64
"""Objects and arrays within each other; a device's tool descriptions have about ten."""

# Possessive, so that quotes that are never closed are looked at once.
_TOKEN: Final = re.compile(r'[{\[]|[}\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)


def is_too_deep(text: str) -> bool:
    """Whether JSON is nested deeper than `MAX_JSON_DEPTH`; of other text the answer means nothing.

    Costs next to nothing for a text with fewer brackets than that.
    """
    if text.count("{") + text.count("[") <= MAX_JSON_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "{[":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                return True
        elif first in "}]":
            depth -= 1
    return False
