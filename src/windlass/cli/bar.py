"""A bar on stderr for work of known length, while that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: float, text: str = "", *, quiet: bool = False) -> Iterator[Callable[[float], object]]:
    """What is told how far the work has come, up to `total`. `text` is rich's, of its `task`."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    # Here, as only a terminal needs them and they take long to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn(text))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)
