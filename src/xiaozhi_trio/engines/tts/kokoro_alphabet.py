"""The phonemes that Kokoro 82M v1.0 was trained on, and their numbers.

Source: `vocab` in the config.json published with the model. Numbers that are
missing here belong to no phoneme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# First number of each unbroken row, and its phonemes.
_ROWS = {
    1: ";:,.!?",
    9: '—…"()“” \u0303ʣʥʦʨᵝꭧAI',
    31: "O",
    33: "Q",
    35: "ST",
    39: "W",
    41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyzɑɐɒæ",
    75: "βɔɕç",
    80: "ɖðʤə",
    85: "ɚɛɜ",
    90: "ɟ",
    92: "ɡ",
    99: "ɥ",
    101: "ɨɪʝ",
    110: "ɯɰŋɳɲɴø",
    118: "ɸθœ",
    123: "ɹ",
    125: "ɾɻ",
    128: "ʁɽʂʃʈʧ",
    135: "ʊʋ",
    138: "ʌɣɤ",
    142: "χʎ",
    147: "ʒʔ",
    156: "ˈˌː",
    162: "ʰ",
    164: "ʲ",
    169: "↓",
    171: "→↗↘",
    177: "ᵻ",
}

PHONEME_NUMBERS: Mapping[str, int] = {
    phoneme: first + offset for first, row in _ROWS.items() for offset, phoneme in enumerate(row)
}


def numbers_of(phonemes: str) -> list[int]:
    """The numbers of `phonemes`; what the model has no sound for is left out."""
    return [PHONEME_NUMBERS[phoneme] for phoneme in phonemes if phoneme in PHONEME_NUMBERS]
