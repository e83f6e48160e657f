from __future__ import annotations

import pytest

from xiaozhi_trio.engines.errors import EngineError
from xiaozhi_trio.engines.errors import EngineErrorCategory as Category
from xiaozhi_trio.engines.retry import SOON_SECONDS, is_worth_another_try


@pytest.mark.parametrize(
    ("category", "retryable", "seconds", "alone", "again"),
    [
        (Category.CONNECTIVITY, True, 0.1, False, True),
        (Category.CONNECTIVITY, True, 0.1, True, True),
        (Category.CONNECTIVITY, False, 0.1, True, False),
        (Category.CONNECTIVITY, True, SOON_SECONDS + 0.1, True, False),
        (Category.UNAVAILABLE, True, 0.1, False, True),
        (Category.RATE_LIMIT, True, 0.1, False, False),
        (Category.RATE_LIMIT, True, 0.1, True, True),
        (Category.BUSY, True, 0.0, False, False),
        (Category.BUSY, True, 0.0, True, True),
        (Category.TIMEOUT, True, 0.1, False, False),
        (Category.QUOTA, False, 0.1, True, False),
    ],
)
def test_worth(
    category: Category, *, retryable: bool, seconds: float, alone: bool, again: bool
) -> None:
    error = EngineError("no", engine="e", category=category, retryable=retryable)
    assert is_worth_another_try(error, seconds=seconds, alone=alone) is again
