"""Where an embedded engine gets the files of its model from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path


@runtime_checkable
class ModelFolder(Protocol):
    """The model files on this machine, by the names of the catalogue."""

    async def ensure(self, name: str) -> Path:
        """The folder with the verified files of the model `name`; what is missing is fetched first.

        Raises `EngineError` where the files cannot be had.
        """
