"""A runner of Windlass whose jobs are done at once: all of the agent, and no box.

    WINDLASS_REGISTRATION_TOKEN=... python -m bench.noop_runner SERVER DIRECTORY JOBS

Its result is what a command's is; the standard output is the moment at which the job started, in nanoseconds
of the machine's monotonic clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from windlass import logs
from windlass.judge.verdict import Status
from windlass.runner import process
from windlass.runner.agent import Options
from windlass.runner.executors.base import Assignment, Executed, Executor, Progress
from windlass.runner.executors.results import CaseResult, ResultWriter
from windlass.runner.workspace import JobDirectory


class Noop(Executor):
    """Does nothing, successfully."""

    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:  # noqa: ARG002
        started = time.monotonic_ns()
        with ResultWriter(directory) as writer:
            writer.begin_task()
            writer.add(CaseResult(status=Status.ACCEPTED, exit_code=0, stdout=str(started)))
            writer.end()
        return Executed(result=writer.result)


@asynccontextmanager
async def _executor() -> AsyncIterator[Executor]:
    yield Noop()


def main() -> None:
    server, directory, jobs = sys.argv[1:]
    logs.configure("console")
    token = os.environ["WINDLASS_REGISTRATION_TOKEN"]
    process.run(Options(server, Path(directory), "bench", token, int(jobs)), _executor)


if __name__ == "__main__":
    main()
