from __future__ import annotations

import pytest

from xiaozhi_trio.session.script import is_cjk


@pytest.mark.parametrize("char", "中々ひカｱㄅ한𠮷﨑")
def test_characters_spoken_a_syllable_each(char: str) -> None:
    assert is_cjk(char)


@pytest.mark.parametrize("char", "aé1Я。、「😀 ")
def test_others(char: str) -> None:
    assert not is_cjk(char)
