from __future__ import annotations

import pytest

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
