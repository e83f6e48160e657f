"""One setting: a typed attrs field that carries its unit, bounds and reason.

The reference documentation and the commented `config.toml` are generated from
these facts, and the loader checks values against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

_KEY = "xiaozhi_trio.setting"


@attrs.frozen
class SettingFacts:
    """What is known of a setting beside its type and default."""

    why: str
    """One line: what it does and why one would change it."""
    unit: str | None = None
    minimum: float | None = None
    """Smallest value allowed."""
    maximum: float | None = None
    """Largest value allowed."""
    choices: Sequence[str] | None = None
    secret: bool = False
    """Never shown in logs, errors or generated files."""


def setting(
    default: Any = attrs.NOTHING,
    *,
    why: str,
    factory: Callable[[], Any] | None = None,
    unit: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    secret: bool = False,
) -> Any:
    """An attrs field with `SettingFacts`."""
    facts = SettingFacts(
        why=why, unit=unit, minimum=minimum, maximum=maximum, choices=choices, secret=secret
    )
    metadata = {_KEY: facts}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata, repr=not secret)
    return attrs.field(default=default, metadata=metadata, repr=not secret)


def facts_of(attribute: attrs.Attribute[Any]) -> SettingFacts:
    """The facts of a field made by `setting`; raises KeyError for any other field."""
    facts: SettingFacts = attribute.metadata[_KEY]
    return facts
