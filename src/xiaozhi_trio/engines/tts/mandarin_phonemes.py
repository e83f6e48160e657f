"""Mandarin text, English words in it included, as phonemes for Kokoro.

Kokoro has one alphabet for all its languages, so an English word inside a Chinese
sentence is spoken in the same breath by the same voice.
"""

from __future__ import annotations

import logging
import re
import tempfile
from typing import TYPE_CHECKING

from xiaozhi_trio.engines.language import has_chinese, plain_digits, split_runs
from xiaozhi_trio.engines.libraries import library_errors, optional_packages

if TYPE_CHECKING:
    from collections.abc import Callable

    from xiaozhi_trio.engines.tts.english_phonemes import EnglishPhonemes

# misaki reads these as minus, or not at all, or runs into the digits behind them.
_CALCULATION = {"+": "加", "=": "等于", "×": "乘", "*": "乘", "÷": "除以"}
_CALCULATION_SIGN = re.compile(r"(?<=\d)\s*([+=×*÷])\s*(?=-?\d)")
_CURRENCIES = {"$": "美元", "€": "欧元", "£": "英镑", "¥": "元"}
_AMOUNT = re.compile(r"([$€£¥])\s*(\d[\d,]*(?:\.\d+)?)")
_ZERO = str.maketrans("〇", "零")
_RUN_OF_HAN = re.compile(r"[\u4e00-\u9fff]+")
_FINAL_SPACES = re.compile(r"\s+")


class MandarinPhonemes:
    """Turns a sentence into phonemes; made and called in a model's thread."""

    def __init__(self, engine: str, english: EnglishPhonemes) -> None:
        """Load the dictionaries; blocks, a second. Raises `EngineError`."""
        with optional_packages(engine):
            import jieba  # type: ignore[import-untyped]
            from misaki.zh import ZHG2P
            from misaki.zh_normalization.text_normalization import TextNormalizer

        self._engine = engine
        self._english = english
        jieba.setLogLevel(logging.WARNING)
        with (
            library_errors(engine, "loading the Mandarin dictionaries"),
            # By itself jieba reads and writes a cache of fixed name in the folder for
            # temporary files, where anybody may have put another one.
            tempfile.TemporaryDirectory(prefix="xiaozhi-trio-") as private,
        ):
            jieba.dt.tmp_dir = private
            jieba.initialize()
            self._normalise: Callable[[str], list[str]] = TextNormalizer().normalize
            self._cut: Callable[[str], list[str]] = jieba.lcut
            self._word: Callable[[str], str] = ZHG2P.word2ipa
            self._punctuation: Callable[[str], str] = ZHG2P.map_punctuation

    def __call__(self, text: str) -> str:
        """The phonemes; numbers, dates, times and units are read the Chinese way."""
        text = plain_digits(text).translate(_ZERO)
        with library_errors(self._engine, "phonemes of the text", bad_input=True):
            phonemes = " ".join(
                self._english(run.text) if run.is_latin else self._chinese(run.text)
                for run in split_runs(text)
            )
        return _FINAL_SPACES.sub(" ", phonemes).strip()

    def _chinese(self, text: str) -> str:
        text = _AMOUNT.sub(lambda amount: amount.group(2) + _CURRENCIES[amount.group(1)], text)
        text = _CALCULATION_SIGN.sub(lambda sign: _CALCULATION[sign.group(1)], text)
        # The normaliser drops what surrounds it at the edges of its input.
        words = "".join(self._normalise(text))
        # Single letters, left over beside digits ("3D"), are English once more.
        return " ".join(
            self._english(run.text) if run.is_latin else self._han(run.text)
            for run in split_runs(words)
        )

    def _han(self, text: str) -> str:
        if not has_chinese(text):
            return self._punctuation(text)
        pieces: list[str] = []
        end = 0
        for run in _RUN_OF_HAN.finditer(text):
            pieces.append(self._punctuation(text[end : run.start()]))
            pieces.append(" ".join(self._pronounce(word) for word in self._cut(run.group())))
            end = run.end()
        pieces.append(self._punctuation(text[end:]))
        return " ".join(piece for piece in pieces if piece)

    def _pronounce(self, word: str) -> str:
        try:
            return self._word(word)
        except ValueError:
            # A character that stands for more than one syllable (嗧, gallon) or has no
            # reading on record; the rest of the word is still worth hearing.
            if len(word) == 1:
                return ""
            return "".join(self._pronounce(character) for character in word)
