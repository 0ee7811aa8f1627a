"""A runner is killed in the middle of a job: another one finishes it, soon."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ServerProcess, until
from tests.installation import Judge, RunnerProcess, adopting, server_environment, sleepers

pytestmark = pytest.mark.storm


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    """What a killed runner leaves behind is ours to find."""
    with adopting():
        yield


LEASE = 5.0
POLL = 20.0  # how long a runner's poll waits for a job
PATIENT = "import subprocess\nsubprocess.run(['sleep', '1000'])\nprint(sum(map(int, input().split())))"


def test_what_one_runner_leaves_unfinished_another_finishes(tmp_path: Path) -> None:
    """Planted: a lease that a restart or another runner's heartbeat renews; a job that only its first runner,
    or nobody who waits in a long poll, is given again."""
    with ServerProcess(tmp_path / "data", environment=server_environment(LEASE, heartbeat=0.5)) as server:
        runners = [RunnerProcess(server, tmp_path, name) for name in ("one", "two")]
        judge = Judge(server)
        judge.put_problem(1, [("1 2", "3")], time_limit=60_000)
        for runner in runners:
            runner.start()
        try:
            until(lambda: len(judge.get("/runners")["runners"]) == 2, 60, "both runners")
            for turn in range(2):
                take_over(judge, runners, f"{turn}")
            assert [runner.terminate() for runner in runners] == [0, 0]
        finally:
            for runner in runners:
                if runner.running:
                    runner.kill()
            judge.close()
        assert [runner.groups() for runner in runners] == [[], []]


def take_over(judge: Judge, runners: list[RunnerProcess], key: str) -> None:
    """Kill whichever runner has a new job, and have the other finish it."""
    name = judge.submit(1, PATIENT, key=key)
    until(lambda: judge.submission(name)["status"] == "judging", 60, "its start")
    job_id = judge.submission(name)["job_id"]
    first = judge.holder(job_id, runners)
    assert first is not None
    until(lambda: sleepers(first.pid), what="the program in its box")
    assert first.kill() > 0
    [second] = [runner for runner in runners if runner is not first]
    for pid in until(lambda: sleepers(second.pid), what="the program in the other's box"):
        os.kill(pid, signal.SIGKILL)
    found = judge.done(name, 60)
    assert (found["verdict"], found["generation"]) == ("AC", 1)
    job = judge.get(f"/jobs/{job_id}")
    first_lease, end, second_lease = job["events"][1:4]
    assert (first_lease["event"], end["event"], second_lease["event"]) == (
        "leased",
        "lease_expired",
        "leased",
    )
    assert first_lease["by"] != second_lease["by"]
    assert job["attempts"] == 2
    assert seconds(end, second_lease) < POLL / 2, "it is not its next poll that brings it"
    first.start()
    until(lambda: first.jobs == [], 60, "what it had left to be swept")


def seconds(one: dict[str, Any], other: dict[str, Any]) -> float:
    """How much later another event was."""
    return (datetime.fromisoformat(other["at"]) - datetime.fromisoformat(one["at"])).total_seconds()
