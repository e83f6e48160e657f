"""Where on this machine things are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xiaozhi_trio.store.secret import state_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xiaozhi_trio.config.settings import Settings

STATE_VARIABLE = "XIAOZHI_TRIO_STATE"
"""Environment variable that names the state folder where the configuration does not."""


def state_directory(settings: Settings, *, environment: Mapping[str, str] = os.environ) -> Path:
    """The state folder: the configured one, else `XIAOZHI_TRIO_STATE`, else the user's own."""
    return state_folder(settings.state.directory or environment.get(STATE_VARIABLE, ""))
