from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xiaozhi_trio.engines.tts.english_phonemes import EnglishPhonemes, speakable
from xiaozhi_trio.engines.tts.kokoro_alphabet import PHONEME_NUMBERS, numbers_of
from xiaozhi_trio.engines.tts.mandarin_phonemes import MandarinPhonemes
from xiaozhi_trio.engines.tts.waveform import has_sound

pytest.importorskip("hibari")
pytest.importorskip("misaki")


@pytest.fixture(scope="module")
def english() -> EnglishPhonemes:
    return EnglishPhonemes("test")


@pytest.fixture(scope="module")
def mandarin(english: EnglishPhonemes) -> MandarinPhonemes:
    return MandarinPhonemes("test", english)


def test_speakable() -> None:
    assert speakable("ＡＢＣ １２３") == "ABC 123"
    assert speakable("1234567890123 is 123456789012") == (
        "1 2 3 4 5 6 7 8 9 0 1 2 3 is 123456789012"
    )


def test_english(english: EnglishPhonemes) -> None:
    assert english("Hello there.") == "həlˈO ðˈɛɹ."
    assert english("1" * 300)
    assert english("") == ""
    assert not has_sound(english("😀"))


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("25.5度", "二十五点五度"),
        ("25℃", "二十五度"),
        ("13800138000", "幺三八零零幺三八零零零"),
        ("12:30", "十二点半"),
        ("2024年3月5日", "二零二四年三月五日"),
        ("100%", "百分之一百"),
        ("〇", "零"),
        ("价格$100", "价格一百美元"),
        ("1+1=2", "一加一等于二"),
        ("價錢", "价钱"),
        ("3kg", "三千克"),
    ],
)
def test_mandarin_reads_what_is_not_words(
    mandarin: MandarinPhonemes, written: str, spoken: str
) -> None:
    def sounds(phonemes: str) -> list[int]:
        return [number for number in numbers_of(phonemes) if number != PHONEME_NUMBERS[" "]]

    assert sounds(mandarin(written)) == sounds(mandarin(spoken))


@pytest.mark.parametrize("word", ["Python", "Wi-Fi", "machine learning", "AI", "GPT-4", "iPhone15"])
def test_english_words_inside_mandarin(
    mandarin: MandarinPhonemes, english: EnglishPhonemes, word: str
) -> None:
    phonemes = mandarin(f"我用{word}写。")
    assert english(word) in phonemes
    assert phonemes.startswith("wo↓")
    assert phonemes.endswith(".")


def test_letters_beside_digits_are_heard(
    mandarin: MandarinPhonemes, english: EnglishPhonemes
) -> None:
    assert english("D") in mandarin("在3D打印")


def test_character_without_a_reading_leaves_the_rest(mandarin: MandarinPhonemes) -> None:
    assert not has_sound(mandarin("嗧"))
    assert has_sound(mandarin("一嗧水"))


def test_mandarin_without_a_word(mandarin: MandarinPhonemes) -> None:
    assert not has_sound(mandarin("，。！"))
    assert not has_sound(mandarin(""))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=30))
def test_any_text_has_phonemes(
    mandarin: MandarinPhonemes, english: EnglishPhonemes, text: str
) -> None:
    for convert in (mandarin, english):
        numbers_of(convert(text))


def test_alphabet_is_the_one_hibari_shares() -> None:
    import json
    from importlib.resources import files

    shared = json.loads((files("hibari") / "assets" / "vocab.json").read_text(encoding="utf-8"))
    assert shared == PHONEME_NUMBERS


@pytest.mark.parametrize(
    ("phonemes", "expected"), [("həlˈO", True), ("...", False), ("ˈ ː", False), ("", False)]
)
def test_has_sound(phonemes: str, expected: bool) -> None:
    assert has_sound(phonemes) is expected
