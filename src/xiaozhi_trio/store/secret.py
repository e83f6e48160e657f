"""The secret that signs tokens, generated once and kept in the state folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Final

FILE_NAME: Final = "token-secret"
_MIN_LENGTH: Final = 32
"""Characters; what we write has 43."""


class SecretUnavailable(Exception):
    """The secret can be neither read nor created; the text says where and what to do."""


def state_folder(configured: str) -> Path:
    """The folder of `[state] directory`, or the user's own where that is empty."""
    if configured:
        return Path(configured).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "xiaozhi-trio"
    root = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".local" / "state"
    return base / "xiaozhi-trio"


def load_or_create_secret(folder: Path) -> str:
    """The secret of this folder, created on the first call.

    Processes that start at once all get the same one. Does file I/O: call it before
    the event loop or in a thread. Raises `SecretUnavailable`.
    """
    path = folder / FILE_NAME
    try:
        if not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(path)
        secret = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(
            f"the token secret {path} cannot be used ({error}); make the folder writable, point "
            "[state] directory elsewhere, or set [authentication] secret"
        ) from error
    if len(secret) < _MIN_LENGTH:
        raise SecretUnavailable(
            f"the token secret {path} has {len(secret)} characters, at least {_MIN_LENGTH} were "
            "expected; delete the file to have a new one made (devices then need new tokens)"
        )
    return secret


def _create(path: Path) -> None:
    # A link appears whole or not at all and fails where the name is taken, so that
    # whoever comes second reads what the first has written.
    descriptor, draft = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
