"""Secrets kept out of the log: the ones we know, and whatever looks like one."""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus

HIDDEN = "***"

_SHORTEST = 4
"""Characters. A shorter text occurs by chance, and hiding it would tell what it is."""

_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "api_key",
        "apikey",
        "access_token",
        "auth_key",
        "password",
        "secret",
        "token",
    }
)

_LOOKS_SECRET = re.compile(
    r"""
    (?P<named>
        (?: authorization | (?:api|access|auth)[-_]?(?:key|token) | password | secret
          | (?<![A-Za-z_]) token )
        (?: \\?["'] )? \s* (?: [:=] | %3D ) \s* (?: \\?["'] )?
    ) (?!\*\*\*) (?: (?: bearer | basic ) (?: \s+ | %20 | \+ ) )? [^\s"'&,;\\)}\]]+
  | (?P<scheme> \b bearer (?: \s+ | %20 ) ) (?!\*\*\*) [A-Za-z0-9._~+/=%-]{8,}
  | (?<![A-Za-z0-9_-]) [A-Za-z0-9_-]{43} \. [0-9]{10} (?![0-9])   # a device's token
  | (?<![A-Za-z0-9_-]) sk-[A-Za-z0-9_-]{16,}
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Redactor:
    """The secrets of one process."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def hide(self, secret: str) -> None:
        """Replace this text from now on, however a library may have escaped it."""
        if len(secret) < _SHORTEST:
            return
        self._spellings |= {
            secret,
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
            quote(secret, safe=""),
            quote_plus(secret),
        }
        longest_first = sorted(self._spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first)))

    def redact(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _LOOKS_SECRET.sub(_keep_name, text)


def is_secret_field(name: str, value: object) -> bool:
    """Whether a field is hidden for its name alone.

    `first_token=0.3` is no secret, the number of a lock that is called `password` is.
    """
    if value is None or isinstance(value, bool):
        return False
    words = name.casefold().replace("-", "_")
    if isinstance(value, (int, float)):
        return words in _SECRET_FIELDS
    return any(words == secret or words.endswith(f"_{secret}") for secret in _SECRET_FIELDS)


def _keep_name(match: re.Match[str]) -> str:
    return f"{match['named'] or match['scheme'] or ''}{HIDDEN}"
