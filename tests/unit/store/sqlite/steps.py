"""Counts what the database's virtual machine does: the cost of a verb without a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from tests.contract.bench import Bench
from windlass.clock import ManualClock
from windlass.store.sqlite.store import SQLiteStore


def opened(directory: Path, clock: ManualClock) -> SQLiteStore:
    return SQLiteStore(directory, clock=clock, synchronous="off")


def sqlite_of(bench: Bench) -> SQLiteStore:
    assert isinstance(bench.store, SQLiteStore)
    return bench.store


@contextmanager
def counted(bench: Bench) -> Iterator[Counter[str]]:
    """Sums up `steps` and `statements` of the writer while it is open."""
    found: Counter[str] = Counter()

    def note(event: dict[str, Any]) -> None:
        found["statements"] += 1
        found["steps"] += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    db = sqlite_of(bench)._db
    db.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
    try:
        yield found
    finally:
        bench.run(lambda s: s.ping())  # the last commit's statements are reset
        db.trace_v2(0, None)
