"""A runner is killed in the middle of a job: another one finishes it, soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ServerProcess, until
from tests.installation import Judge, RunnerProcess, adopting, descendants, server_environment

pytestmark = pytest.mark.storm


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    """What a killed runner leaves behind is ours to find."""
    with adopting():
        yield


LEASE = 2.0
SLOW = "import time\ntime.sleep(1)\nprint(sum(map(int, input().split())))"


def test_what_one_runner_leaves_unfinished_another_finishes_within_lease_and_five_seconds(
    tmp_path: Path,
) -> None:
    """Planted: a lease that a restart or another runner's heartbeat renews; a job that only its first runner,
    or nobody who waits in a long poll, is given again."""
    with ServerProcess(tmp_path / "data", environment=server_environment(LEASE, heartbeat=0.5)) as server:
        runners = [RunnerProcess(server, tmp_path, name) for name in ("one", "two")]
        judge = Judge(server)
        judge.put_problem(1, [("1 2", "3")], time_limit=5_000)
        for runner in runners:
            runner.start()
        try:
            until(lambda: len(judge.get("/runners")["runners"]) == 2, 60, "both runners")
            for turn in range(3):
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
    name = judge.submit(1, SLOW, key=key)
    until(lambda: judge.submission(name)["status"] == "judging", 60, "its start")
    job_id = judge.submission(name)["job_id"]
    first = judge.holder(job_id, runners)
    assert first is not None
    until(lambda: len(descendants(first.pid)) > 2, 60, "the program in its box")
    killed = time.monotonic()
    assert first.kill() > 0
    found = judge.done(name, 60)
    assert time.monotonic() - killed < LEASE + 5
    assert (found["verdict"], found["generation"]) == ("AC", 1)
    job = judge.get(f"/jobs/{job_id}")
    leases = [each["by"] for each in job["events"] if each["event"] == "leased"]
    assert (job["attempts"], len(set(leases))) == (2, 2)
    first.start()
    until(lambda: first.jobs == [], 60, "what it had left to be swept")
