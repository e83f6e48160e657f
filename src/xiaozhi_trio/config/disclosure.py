"""Settings as plain values that may be shown to others: without the secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from xiaozhi_trio.config.setting import facts_of
from xiaozhi_trio.config.structuring import is_secret_name
from xiaozhi_trio.config.values import is_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN: Final = "***"
"""Stands for a secret that is set."""


def disclosed(section: Any) -> dict[str, Any]:
    """A section of the settings and those within it, ready for JSON."""
    return dict(_members(section))


def _members(section: Any) -> Iterator[tuple[str, Any]]:
    for attribute in attrs.fields(type(section)):
        value = getattr(section, attribute.name)
        if is_setting(attribute) and facts_of(attribute).secret:
            yield attribute.name, HIDDEN if value else ""
        else:
            yield attribute.name, _plain(value)


def _plain(value: Any) -> Any:
    if attrs.has(type(value)):
        return disclosed(value)
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if _is_hidden(name, member) else _plain(member)
            for name, member in value.items()
        }
    return [_plain(member) for member in value] if isinstance(value, tuple) else value


def _is_hidden(name: str, member: Any) -> bool:
    # The settings of an engine that somebody named "token" hide what is secret themselves.
    return bool(member) and is_secret_name(name) and not attrs.has(type(member))
