"""The no-op job of Windlass and of each task queue on Redis: what a library's worker and its client import.

Each has `submit()`, which returns a handle once the job is stored, and `outcomes(handles)`, which waits for
the jobs and reads what they returned: the moment at which each started (`started`). A module whose library is
asyncio's has both as coroutine functions, and a `connect`.

The port of Redis, or of Windlass, is in BENCH_PORT. Anything else is the library's default.
"""

from __future__ import annotations

import os
import time

AT_ONCE = 8
"""Threads, or coroutines, that submit and read."""
PATIENCE = 60
"""Seconds after which a job that has no outcome is lost."""


def port() -> int:
    return int(os.environ["BENCH_PORT"])


def url() -> str:
    return f"redis://127.0.0.1:{port()}/0"


def started() -> int:
    """The job: nothing, but for telling when it began, in nanoseconds of the machine's monotonic clock."""
    return time.monotonic_ns()
