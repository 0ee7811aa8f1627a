"""A real runner process whose executor does what the job's payload says: for tests of the agent alone.

    python -m tests.e2e.agent_process '{"server": "http://127.0.0.1:9000", "directory": "d", ...}'

`starts`: a file that gets a line for each job that was started: its id and its directory. What a payload
may have: `wait_for`, a file to wait for; `fault` and `cannot`, to fail so; `big`, the bytes of the result;
`text`, what is in the result; `orphan`, to leave behind a process whose parent is gone; `reads`, a file of
the test data whose content is the result.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from windlass import logs
from windlass.errors import StartError
from windlass.runner import process
from windlass.runner.agent import Options
from windlass.runner.executors.base import Assignment, CannotJudge, Executed, Executor, Progress
from windlass.runner.workspace import JobDirectory


class Doing(Executor):
    """Does what the payload says."""

    def __init__(self, starts: Path) -> None:
        self._starts = starts

    async def execute(self, assignment: Assignment, directory: JobDirectory, progress: Progress) -> Executed:
        do = assignment.payload
        self._begin(do, directory.path)
        progress({"event": "started"})
        if do.get("fault"):
            raise ZeroDivisionError(do["fault"])
        if do.get("cannot"):
            raise CannotJudge(do["cannot"])
        if do.get("wait_for"):
            await _there(Path(do["wait_for"]))
        return Executed(result=_written(assignment, directory.path))

    def _begin(self, do: Mapping[str, Any], directory: Path) -> None:
        assert list(directory.iterdir()) == []
        with self._starts.open("a") as file:
            file.write(f"{do['job_id']} {directory}\n")
        if do.get("orphan"):
            # The shell is gone at once; its child is process 1's, and ends a moment later.
            subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)


async def _there(file: Path) -> None:
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)


def _written(assignment: Assignment, directory: Path) -> Path:
    do = assignment.payload
    text = do.get("text", "done")
    if do.get("reads"):
        assert assignment.testdata is not None
        text = (assignment.testdata / do["reads"]).read_text()
    result = directory / "result.json"
    with result.open("w") as out:
        out.write('{"tasks": [[{"status": "AC", "stdout": "')
        for _ in range(do.get("big", 0) // 1_000_000):
            out.write("x" * 1_000_000)
        out.write(json.dumps(text)[1:] + "}]]}")
    return result


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    starts = Path(given.pop("starts"))
    given["directory"] = Path(given["directory"])
    if "features" in given:
        given["features"] = tuple(given["features"])

    @asynccontextmanager
    async def executor() -> AsyncIterator[Executor]:
        yield Doing(starts)

    logs.configure("console")
    process.go_on_in_a_child_of_process_1()
    try:
        process.run(Options(name="e2e", **given), executor)
    except StartError as error:
        print(f"windlass: {error.detail}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
