from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi_trio.wire.device_id import normalise_device_id


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("aa:bb:cc:dd:ee:ff", "aa:bb:cc:dd:ee:ff"),
        ("AA:BB:CC:DD:EE:FF", "aa:bb:cc:dd:ee:ff"),
        ("AA-bb-CC-dd-EE-ff", "aa:bb:cc:dd:ee:ff"),
        ("AABBCCDDEEFF", "aa:bb:cc:dd:ee:ff"),
        ("  00:22:44:66:88:00\t", "00:22:44:66:88:00"),
        ("web_test_client", "web_test_client"),
        ("Kitchen.Speaker-2", "Kitchen.Speaker-2"),
        ("aa:bb-cc:dd-ee:ff", "aa:bb-cc:dd-ee:ff"),
        ("aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee"),
        ("x" * 64, "x" * 64),
    ],
)
def test_every_spelling_of_a_device_becomes_one(raw: str, expected: str) -> None:
    assert normalise_device_id(raw) == expected
    assert normalise_device_id(expected) == expected


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("x" * 65, "65 characters"),
        (".", "not allowed"),
        ("..", "not allowed"),
        ("../../etc/passwd", "not allowed"),
        ("a b", "not allowed"),
        ("a\nb", "not allowed"),
        ("'; drop table", "not allowed"),
        ("设备", "not allowed"),
        ("aa:bb:cc:dd:ee:f\u0661", "not allowed"),
    ],
)
def test_an_unsafe_id_is_refused_without_repeating_it(raw: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        normalise_device_id(raw)
    assert not raw.strip(" .") or raw not in str(caught.value)


SAFE = set(string.ascii_letters + string.digits + "._:-")


@given(st.text() | st.from_regex(r"\s*[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){0,6}\s*"))
def test_any_text_is_a_safe_id_or_refused(raw: str) -> None:
    with contextlib.suppress(ValueError):
        device_id = normalise_device_id(raw)
        assert 0 < len(device_id) <= 64
        assert set(device_id) <= SAFE
        assert device_id not in (".", "..")
        assert normalise_device_id(device_id) == device_id
