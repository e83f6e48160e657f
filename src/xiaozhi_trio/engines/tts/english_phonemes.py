"""English text as phonemes in the alphabet that Kokoro and hibari share.

hibari carries the dictionaries and rules of misaki without the parts that need
spaCy models or the GPL phonemizer, so Kokoro's English stands on them as well.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from xiaozhi_trio.engines.language import plain_digits
from xiaozhi_trio.engines.libraries import library_errors, optional_packages

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_NUMBER = 12
"""Digits; longer rows of them are no amounts and are spelled, which hibari cannot do itself."""

_LONG_NUMBER = re.compile(rf"\d{{{LONGEST_NUMBER + 1},}}")


class EnglishPhonemes:
    """Turns English text into phonemes; made and called in a model's thread."""

    def __init__(self, engine: str) -> None:
        """Load the dictionaries; blocks, half a second. Raises `EngineError`."""
        with optional_packages(engine):
            from hibari.g2p import G2P

        self._engine = engine
        with library_errors(engine, "loading the English dictionaries"):
            self._convert: Callable[[str], str] = G2P()

    def __call__(self, text: str) -> str:
        """The phonemes; empty where nothing in `text` can be pronounced."""
        with library_errors(self._engine, "phonemes of the text", bad_input=True):
            return self._convert(speakable(text))


def speakable(text: str) -> str:
    """`text` with full-width letters and their like made plain, and long numbers spelled."""
    plain = plain_digits(unicodedata.normalize("NFKC", text))
    return _LONG_NUMBER.sub(lambda digits: " ".join(digits.group()), plain)
