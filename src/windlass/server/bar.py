"""A bar on a terminal, for what keeps a start waiting."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """Told how far something is: what is done at once draws nothing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._progress: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._progress is None:
            if done >= total:
                return
            columns = TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.add_task(self._what)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done, total=total)
        if done >= total:
            self._progress.stop()
            self._progress = None
