"""windlass products rebuild: the filter made anew, with a bar while it lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windlass.cli.connect import connect, fail
from windlass.cli.output import note, number, print_json

PAUSE = 0.25
"""Seconds between two looks at how far it is."""


def run(server: str, key: str | None, json: bool) -> None:
    """The command. It may be interrupted; the rebuild goes on."""
    with connect(server, key) as client, _progress() as show:
        found = client.products.rebuild()
        while found.rebuilding is not None:
            show(found.rebuilding)
            time.sleep(PAUSE)
            found = client.products.stats()
    if found.rebuild_failed is not None:
        fail(f"The filter is as it was: {found.rebuild_failed}")
    if json:
        print_json(found)
    else:
        rate = f"{found.estimated_false_positive_rate:.4%}"
        note(f"The filter is made anew: {number(found.items)} ids; it lets {rate} of absent ids pass.")


@contextmanager
def _progress() -> Iterator[Callable[[float], object]]:
    """A bar on stderr while it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    # Here, as only a terminal needs them and they take long to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn

    with Progress(
        BarColumn(), TaskProgressColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda done: progress.update(task, completed=done)
