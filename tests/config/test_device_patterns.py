"""Which devices a pattern means, beside what `fnmatch` says of the same pattern."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.config.device_patterns import DevicePatterns

texts = st.text("ab:", max_size=8)
globs = st.text("ab:*", max_size=8)


@pytest.mark.parametrize(
    ("pattern", "device_id", "is_meant"),
    [
        ("aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:01", True),
        ("AA:BB:CC:DD:EE:01", "aa:bb:cc:dd:ee:01", True),
        ("kitchen", "Kitchen", True),
        ("aa:bb:cc:dd:ee:01", "aa:bb:cc:dd:ee:011", False),
        ("aa:bb:*", "aa:bb:cc:dd:ee:01", True),
        ("aa:bb:*", "aa:cb:cc:dd:ee:01", False),
        ("*:01", "aa:bb:cc:dd:ee:01", True),
        ("*:01", "aa:bb:cc:dd:ee:01:02", False),
        ("AA:*:01", "aa:bb:cc:dd:ee:01", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab*", "aab", False),
        ("*ab*ab*", "aabab", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("?", "a", False),
    ],
)
def test_a_pattern(pattern: str, device_id: str, is_meant: bool) -> None:
    assert (device_id in DevicePatterns.of([pattern])) is is_meant


def test_one_of_the_patterns_is_enough() -> None:
    patterns = DevicePatterns.of(["kitchen", "aa:*", "*:99"])
    assert all(device in patterns for device in ("kitchen", "aa:bb", "bb:99"))
    assert "bathroom" not in patterns
    assert "aa:bb" not in DevicePatterns.of([])


@given(globs, texts)
def test_stars_are_those_of_fnmatch(pattern: str, device_id: str) -> None:
    assert (device_id in DevicePatterns.of([pattern])) is fnmatchcase(device_id, pattern)


@given(texts, st.lists(st.integers(0, 8)))
def test_what_a_star_stands_for_does_not_matter(device_id: str, cuts: list[int]) -> None:
    pattern = device_id
    for cut in cuts:
        pattern = f"{pattern[:cut]}*{pattern[cut + 2 :]}"
    assert device_id.upper() in DevicePatterns.of([pattern])


@given(st.lists(globs, max_size=4), globs, st.lists(texts, min_size=8, max_size=8))
def test_a_pattern_that_is_in_the_set_brings_no_other_device(
    patterns: list[str], pattern: str, fillings: list[str]
) -> None:
    earlier = DevicePatterns.of(patterns)
    first, *others = pattern.split("*")
    example = first + "".join(
        filling + part for filling, part in zip(fillings, others, strict=False)
    )
    fresh = pattern.replace("*", "z")
    if pattern in earlier:
        assert example in earlier
    assert (pattern in earlier) is (fresh in earlier)


def test_the_longest_ids_take_no_time_that_anyone_would_notice() -> None:
    assert "a" * 10_000 not in DevicePatterns.of(["*a" * 5_000 + "*b*"])
