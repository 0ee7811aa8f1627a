"""What the suite `fleet` measures is runners that hold their jobs all along."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.processes import BenchmarkError
from bench.results import Options, Result
from bench.servers import windlass
from bench.suites.fleet import JOBS, SHARE, TOKEN, check, measure, variant, verify
from tests.harness import WINDLASS

RUNNERS = 6
FEW = 2
INTERVAL = 0.6


def a_run(tmp_path: Path, lease: float) -> Result:
    """The whole suite with a handful of runners, which ask for more time every 0.6 seconds."""
    options = Options(
        rounds=2,
        seconds=INTERVAL,
        connections=(32,),
        threads=1,
        size=1000,
        waiters=100,
        runners=RUNNERS,
        only=(),
        windlass=WINDLASS,
        scratch=Path("/var/tmp"),
        out=tmp_path,
    )
    result = Result("fleet", options)
    environment = {"WINDLASS_REGISTRATION_TOKEN": TOKEN, "WINDLASS_RUNNER_LEASE": str(lease)}
    with windlass(WINDLASS, Path("/var/tmp"), environment) as server:
        asyncio.run(measure(result, server, FEW, INTERVAL))
        assert server.api.status()["states"]["leased"] == RUNNERS * JOBS
    return result


def test_each_round_is_kept_of_few_runners_and_of_all(tmp_path: Path) -> None:
    result = a_run(tmp_path, lease=60)
    assert list(result.values(SHARE, variant(FEW))) == [1, 2]
    assert list(result.values(SHARE, variant(RUNNERS))) == [1, 2]


def test_a_lease_that_runs_out_between_heartbeats_is_an_error(tmp_path: Path) -> None:
    """Planted: leases shorter than the interval, which a suite that counts answers alone would not see."""
    with pytest.raises(BenchmarkError, match="lost"):
        a_run(tmp_path, lease=0.3)


def test_fewer_answers_than_heartbeats_due_are_an_error() -> None:
    """Planted: a server that answers every second heartbeat."""
    verify(9_900, 10_000)
    with pytest.raises(BenchmarkError, match="5000 heartbeats were answered, and 10000 were due"):
        verify(5_000, 10_000)


def test_a_job_that_is_leased_no_more_is_an_error() -> None:
    """Planted: a lease that ran out after the last heartbeat of its runner."""
    check(800, 800, [1] * 100)
    with pytest.raises(BenchmarkError, match="800 jobs should be leased, and 799 are"):
        check(800, 799, [1] * 100)


def test_a_job_that_was_tried_again_is_an_error() -> None:
    """Planted: a job that ran out and was given out again, so that as many as before are leased."""
    with pytest.raises(BenchmarkError, match="tried 2 times"):
        check(800, 800, [1] * 99 + [2])
