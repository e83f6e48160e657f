"""The folders a configuration chooses, and whether this user can write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xiaozhi_trio.config.settings import Settings


def model_directory(settings: Settings) -> Path:
    """The folder of the model files: the configured one, else the user's cache folder."""
    from xiaozhi_trio.engines.model_store import default_model_directory

    configured = settings.models.directory
    return Path(configured).expanduser() if configured else default_model_directory()


def obstacle_to_writing(folder: Path) -> str | None:
    """Why files could not be put into a folder that may not be there yet; creates nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        return f"{existing} is a file, not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written by this user"
    return None
