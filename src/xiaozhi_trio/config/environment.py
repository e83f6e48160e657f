"""Secrets taken from the environment: `api_key = "${OPENAI_API_KEY}"`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xiaozhi_trio.config.values import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def is_reference(value: object) -> bool:
    """Whether the whole value is `${NAME}`."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def expand(value: str, environment: Mapping[str, str]) -> str:
    """The secret itself, or the variable's value where it is `${NAME}`.

    Raises `SettingError` where the variable is missing or empty, and where `${` is used in
    any other way: sending half a reference as a key would fail far from its cause.
    """
    if "${" not in value:
        return value
    reference = _REFERENCE.fullmatch(value)
    if reference is None:
        raise SettingError(
            "came a hidden text with `${` in it, expected exactly `${NAME}` or none",
            "name one environment variable and nothing else, or put the whole secret into one",
        )
    name = reference[1]
    found = environment.get(name, "")
    if not found:
        raise SettingError(
            f"came ${{{name}}}, but the environment variable {name} is "
            + ("empty" if name in environment else "not set"),
            f"set {name} where the server is started, or write the secret itself",
        )
    return found
