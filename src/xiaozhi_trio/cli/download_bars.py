"""How far the fetching of models has come: bars on a terminal, a line a file elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.progress import TaskID

    from xiaozhi_trio.engines.model_progress import ModelProgress


class DownloadBars:
    """A context manager; what is reported goes to stderr, what is said to stdout."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bars: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, progress: ModelProgress) -> None:
        """Take a report of the model store."""
        key = (progress.model, progress.file)
        bar = self._bars.get(key)
        if bar is None:
            bar = self._progress.add_task(f"{progress.model}/{progress.file}")
            self._bars[key] = bar
            if not self._console.is_terminal:
                self.say(
                    f"fetching {progress.model}/{progress.file} ({progress.total_bytes} bytes)"
                )
        self._progress.update(bar, completed=progress.done_bytes, total=progress.total_bytes)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
