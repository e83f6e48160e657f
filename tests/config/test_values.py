from __future__ import annotations

from typing import Any

import attrs
import pytest

from xiaozhi_trio.config.setting import SettingFacts, setting
from xiaozhi_trio.config.values import SettingError, closest, expected_of, fit, is_setting, toml_of


@attrs.frozen
class Example:
    free: float = setting(1.0, why="No bounds.")
    at_least: int = setting(1, minimum=1, why="One bound.")
    plain: int = 1
    odd: complex = setting(1j, why="A type no file has.")


def field(name: str) -> attrs.Attribute[Any]:
    attrs.resolve_types(Example)
    return next(field for field in attrs.fields(Example) if field.name == name)


@pytest.mark.parametrize(
    ("kind", "facts", "words"),
    [
        (int, SettingFacts("", minimum=1, maximum=2, unit="ms"), "a whole number from 1 to 2 ms"),
        (int, SettingFacts("", minimum=1), "a whole number of at least 1"),
        (float, SettingFacts("", maximum=2.5, unit="s"), "a number of at most 2.5 s"),
        (float, SettingFacts(""), "a number"),
        (bool, SettingFacts(""), "true or false"),
        (str, SettingFacts("", choices=("a", "b")), 'one of "a", "b"'),
        (int, SettingFacts("", choices=("1", "2"), unit="Hz"), "one of 1, 2 Hz"),
    ],
)
def test_what_a_setting_takes(kind: Any, facts: SettingFacts, words: str) -> None:
    assert expected_of(kind, facts) == words


def test_only_fields_with_facts_are_settings() -> None:
    assert is_setting(field("free"))
    assert not is_setting(field("plain"))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 10**400])
def test_a_number_is_finite_even_without_bounds(value: float) -> None:
    with pytest.raises(SettingError):
        fit(value, field("free"))


def test_one_bound_is_kept() -> None:
    assert fit(10**30, field("at_least")) == 10**30
    with pytest.raises(SettingError, match="came 0, expected a whole number of at least 1"):
        fit(0, field("at_least"))


def test_a_setting_of_an_unknown_type_is_a_bug() -> None:
    with pytest.raises(TypeError):
        fit(1, field("odd"))
    with pytest.raises(TypeError):
        toml_of(1j)


@pytest.mark.parametrize(
    ("value", "toml"),
    [
        (True, "true"),
        (1, "1"),
        (1.5, "1.5"),
        ('a "b" \\ \n 你', '"a \\"b\\" \\\\ \\n 你"'),
        (("a", 1), '["a", 1]'),
        ({}, "{}"),
        ({"a b": [1]}, '{ "a b" = [1] }'),
    ],
)
def test_values_as_toml_writes_them(value: object, toml: str) -> None:
    assert toml_of(value) == toml


def test_the_closest_name_ignores_case_and_dashes() -> None:
    assert closest("End-Silence-ms", ["end_silence_ms", "idle_seconds"]) == "end_silence_ms"
    assert closest("zzz", ["end_silence_ms"]) is None
