"""Which characters are written without spaces and spoken a syllable each."""

from __future__ import annotations


def is_cjk(char: str) -> bool:
    """Whether one character is a Chinese ideograph, kana, bopomofo or hangul, not a mark."""
    return char.isalnum() and (
        "\u3005" <= char <= "\u9fff"
        or "\uac00" <= char <= "\ud7a3"
        or "\uf900" <= char <= "\ufaff"
        or "\uff66" <= char <= "\uff9d"
        or "\U00020000" <= char <= "\U0003ffff"
    )
