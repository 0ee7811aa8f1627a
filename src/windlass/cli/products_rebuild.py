"""windlass products rebuild: the filter made anew, with a bar while it lasts."""

from __future__ import annotations

import time

from windlass.cli.bar import bar
from windlass.cli.connect import connect, fail
from windlass.cli.output import note, number, print_json

PAUSE = 0.25
"""Seconds between two looks at how far it is."""


def run(server: str, key: str | None, json: bool) -> None:
    """The command. It may be interrupted; the rebuild goes on."""
    with connect(server, key) as client, bar(1.0) as show:
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
