"""`windlass serve` with a clock around each statement of its writer: what the suite `profile` runs.

    python -m bench.profiled REPORT ARGUMENTS OF windlass ...

REPORT gets, for each statement, how often it ran, and how long it took by the wall and on the processor, and
how many pages were written: those of commits with a send in them, those of other hot verbs (a preload is not
what is measured then), and those of neither.
The difference is time in which the thread did not run: it waited for the disk or for the interpreter's lock.
"""

from __future__ import annotations

import atexit
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from windlass.cli import main
from windlass.store.operation import Send
from windlass.store.sqlite import writer
from windlass.store.sqlite.operation import Step

_spent: dict[str, dict[str, list[float]]] = {"sending": {}, "others": {}, "preparing": {}}
_kind = "preparing"


def _note(name: str, wall: float, processor: float) -> None:
    row = _spent[_kind].setdefault(name, [0, 0.0, 0.0])
    row[0] += 1
    row[1] += time.perf_counter() - wall
    row[2] += time.thread_time() - processor


class Timed:
    """A connection whose `execute` is timed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __enter__(self) -> Any:
        return self._connection.__enter__()

    def __exit__(self, *error: Any) -> Any:
        return self._connection.__exit__(*error)

    def status(self, op: int, reset: bool = False) -> Any:
        """What the writer asks after each commit: pages written."""
        found = self._connection.status(op, reset)
        row = _spent[_kind].setdefault("pages", [0, 0.0, 0.0])
        row[0] += found[0]
        return found

    def execute(self, sql: str, *arguments: Any) -> Any:
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            return self._connection.execute(sql, *arguments)
        finally:
            _note(_name(sql), wall, processor)


def _name(sql: str) -> str:
    words = sql.split()
    if words[0] in ("BEGIN", "COMMIT", "ROLLBACK"):
        return words[0]
    for word, following in itertools.pairwise(words):
        if word in ("INTO", "FROM", "UPDATE") and following[0].isalpha():
            return f"{words[0]} {following}"
    return words[0]


class TimedWriter(writer.Writer):
    """The writer on a timed connection; a commit as a whole is timed too."""

    def __init__(self, db: Any, *arguments: Any) -> None:
        super().__init__(Timed(db), *arguments)  # type: ignore[arg-type]

    def _attempt(self, operations: Any, **named: Any) -> Any:
        global _kind
        kinds = {type(operation) for operation in operations}
        _kind = "sending" if Send in kinds else "preparing" if kinds == {Step} else "others"
        wall, processor = time.perf_counter(), time.thread_time()
        try:
            return super()._attempt(operations, **named)
        finally:
            _note("all", wall, processor)


if __name__ == "__main__":
    report = Path(sys.argv.pop(1))
    atexit.register(lambda: report.write_text(json.dumps(_spent), encoding="utf-8"))
    import windlass.store.sqlite.store as sqlite_store

    sqlite_store.Writer = TimedWriter  # type: ignore[assignment, attr-defined]
    sys.argv[0] = "windlass"
    main()
