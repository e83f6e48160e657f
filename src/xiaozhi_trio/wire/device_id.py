"""The device id: one spelling for each device, safe in a log line, a path and a key.

Firmware sends its Wi-Fi MAC address in lower case with colons; other clients
send it in upper case, with dashes or without separators, or a name of their own.
"""

from __future__ import annotations

import re

MAX_LENGTH = 64
"""Characters."""

_MAC = re.compile(r"[0-9a-f]{2}([:-]?)[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}", re.ASCII | re.IGNORECASE)
# The look-ahead keeps out "." and "..", which are folders.
_NAME = re.compile(rf"(?=.*[A-Za-z0-9])[A-Za-z0-9._:-]{{1,{MAX_LENGTH}}}", re.ASCII)


def normalise_device_id(raw: str) -> str:
    """The one spelling of a device id: a MAC address as `aa:bb:cc:dd:ee:ff`, a name as sent.

    Raises ValueError for an id that is empty, too long or has other characters
    than a name may have. The error's text does not repeat the id.
    """
    text = raw.strip()
    if not text:
        raise ValueError("the device id is empty; send the device's MAC address")
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"the device id has {len(text)} characters, at most {MAX_LENGTH} are allowed; "
            "send the device's MAC address"
        )
    if _MAC.fullmatch(text):
        digits = re.sub("[:-]", "", text).lower()
        return ":".join(digits[start : start + 2] for start in range(0, 12, 2))
    if not _NAME.fullmatch(text):
        raise ValueError(
            "the device id has characters that are not allowed; send a MAC address such as "
            "aa:bb:cc:dd:ee:ff, or letters, digits and . _ : - only"
        )
    return text
