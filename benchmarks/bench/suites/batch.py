"""Batches of 100 a request, in messages a second, against what SQLite itself inserts on the same disk."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench.api import content
from bench.measure import measure
from bench.processes import scratch_directory
from bench.results import Options, begin, finish
from bench.servers import windlass

BATCH = 100
ROWS_A_TRANSACTION = 1024


def sqlite_rows(directory: Path, seconds: float) -> float:
    """Rows a second that a bare loop inserts: WAL, synchronous=FULL, 1,024 rows a transaction."""
    rows = [(content("bench"),)] * ROWS_A_TRANSACTION
    with closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, content TEXT NOT NULL)")
        inserted = 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO message (content) VALUES (?)", rows)
            database.execute("COMMIT")
            inserted += ROWS_A_TRANSACTION
    return inserted / elapsed


def run(options: Options) -> None:
    result = begin("batch", options)
    result.settings |= {"batch": BATCH, "rows_a_transaction": ROWS_A_TRANSACTION}
    connections = options.connections[0]
    metric = "messages"
    for round_ in range(1, options.rounds + 1):
        with scratch_directory(options.scratch, "sqlite") as directory:
            result.add(metric, "bare sqlite3 loop", round_, sqlite_rows(directory, options.seconds))
        for operation in ("send_batch", "receive_batch"):
            with windlass(options.windlass, options.scratch) as server:
                found = measure(server, operation, options, connections=connections, batch=BATCH)
            result.add(metric, operation, round_, found.rate * BATCH, **found.details)
    result.ratio("batch sends / bare sqlite3", (metric, "send_batch"), (metric, "bare sqlite3 loop"), aim=0.8)
    result.ratio("batch receives / batch sends", (metric, "receive_batch"), (metric, "send_batch"), aim=0.5)
    finish(result)
