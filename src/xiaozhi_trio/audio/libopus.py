"""The system's libopus as PyOgg binds it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


class OpusMissingError(RuntimeError):
    """libopus, or libopusfile beside it, is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "libopus and libopusfile were not found: install them with `apt install libopusfile0` "
            "(Debian, Ubuntu) or `brew install opusfile` (macOS)"
        )


def bindings() -> ModuleType:
    """PyOgg's raw ctypes functions. Raises `OpusMissingError` where they cannot work."""
    opus = _pyogg_opus()
    # PyOgg 0.6.14a1 defines the codec's functions only where libopusfile is there too.
    if not (opus.PYOGG_OPUS_AVAIL and opus.PYOGG_OPUS_FILE_AVAIL):
        raise OpusMissingError
    return opus


def _pyogg_opus() -> ModuleType:
    if sys.platform == "darwin":
        # Only Homebrew's own Python looks where Homebrew keeps its libraries.
        os.environ.setdefault(
            "DYLD_FALLBACK_LIBRARY_PATH", "/opt/homebrew/lib:/usr/local/lib:/usr/lib"
        )
    path = os.environ.get("PATH")
    try:
        from pyogg import opus
    finally:
        # Its search appends folders behind semicolons, which spoils the last entry.
        if path is not None:
            os.environ["PATH"] = path
    module: ModuleType = opus
    return module
