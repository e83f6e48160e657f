"""The secrets of a configuration, so that the log can be told what to hide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from xiaozhi_trio.config.setting import facts_of
from xiaozhi_trio.config.structuring import is_secret_name
from xiaozhi_trio.config.values import is_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xiaozhi_trio.config.settings import Settings


def secret_values(settings: Settings) -> Iterator[str]:
    """Every secret that is set, also of named engines and of those that are not built in."""
    yield from _secrets_of(settings)


def _secrets_of(section: Any) -> Iterator[str]:
    for attribute in attrs.fields(type(section)):
        value = getattr(section, attribute.name)
        if is_setting(attribute) and facts_of(attribute).secret:
            if value:
                yield value
        elif isinstance(value, Mapping):
            yield from _secrets_within(value)
        elif attrs.has(type(value)):
            yield from _secrets_of(value)
        elif isinstance(value, tuple):
            for member in filter(lambda member: attrs.has(type(member)), value):
                yield from _secrets_of(member)


def _secrets_within(tables: Mapping[str, Any]) -> Iterator[str]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _secrets_within(value)
        elif attrs.has(type(value)):
            yield from _secrets_of(value)
        elif isinstance(value, str) and value and is_secret_name(key):
            yield value
